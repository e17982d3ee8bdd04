"""The study's config, frozen: from an ml_collections ConfigDict to dataclasses, every check that needs no data."""

import dataclasses


class InputError(ValueError):
    """Bad input: one sentence with the numbers and the remedy; main.py prints it and exits with code 2."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    source: str = "docs"  # docs | file:PATH-or-glob | tfds:NAME
    tokenizer: str = "bytes"
    seq_len: int = 64  # tokens a window
    max_bytes: int = 4_000_000  # of text, all splits together; 0 = all there is
    tune_fraction: float = 0.05  # share of the documents
    test_fraction: float = 0.05
