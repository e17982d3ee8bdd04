import time

import pytest

from tests.data import data_config
from train.data import corpora, docs, documents

MODULE = '''"""
The module docstring explains in one sentence what the module is for.
"""
import os
raise SystemExit("a package that is read must not be run")

# "a comment with one quote
SQL = """
This string is a value and not a docstring, so it is left out.
"""

def total(values):
    r"""Add up all of the values that stand in the given array.

    Parameters
    ----------
    values : array_like, optional
        The values to add, which may be of any numerical type
        and of any shape at all.

    Examples
    --------
    >>> total([1, 2, 3])
    6

    Notes
    -----
    See :func:`numpy.sum` for the function that this one wraps [1]_.

    .. math:: x = y
    """

class Other:
    """Add up all of the values that stand in the given array."""
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "invented_package"
    (folder / "tests").mkdir(parents=True)
    (folder / "__init__.py").write_text(MODULE)
    (folder / "tests" / "helpers.py").write_text('"""Text of a test module, which is no documentation at all."""')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(docs, "PACKAGES", ("invented_package", "not_installed_package"))
    monkeypatch.setattr(docs, "SHORTEST_DOCUMENT_BYTES", 1)
    return folder


def test_a_module_becomes_its_sentences(package):
    assert dict(docs.records())["invented_package"].decode() == (
        "The module docstring explains in one sentence what the module is for.\n\n"
        "Add up all of the values that stand in the given array.\n"
        "The values to add, which may be of any numerical type\nand of any shape at all.\n"
        "See `numpy.sum` for the function that this one wraps."
    )


def test_test_modules_and_absent_packages_are_left_out(package):
    names = [name for name, _ in docs.records()]
    assert [name for name in names if not name.startswith("python.")] == ["invented_package"]


def test_no_paragraph_stands_in_two_documents(package):
    (package / "copy.py").write_text(MODULE)
    names = [name for name, _ in docs.records()]
    assert len({"invented_package", "invented_package.copy"} & set(names)) == 1


def test_a_document_ends_after_its_full_length(package, monkeypatch):
    monkeypatch.setattr(docs, "DOCUMENT_BYTES", 75)
    text = dict(docs.records())["invented_package"].decode()
    assert text.count("\n\n") == 1 and text.endswith("the given array.")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    began = time.process_time()
    corpus = corpora.write_corpus(data_config(), folder)
    return corpus, time.process_time() - began, folder


def test_the_corpus_is_large_even_and_quick(corpus):
    corpus, seconds, _ = corpus
    assert corpus.unit == "document"
    assert 1_500_000 < corpus.num_bytes.sum() <= 4_000_000
    for split in ("tune", "test"):
        first, last = corpus.splits[split]
        sizes = corpus.num_bytes[first:last]
        assert sizes.sum() ** 2 / (sizes**2).sum() >= 20, split
    assert seconds < 20  # about 5 on an idle core


def test_the_corpus_is_english(corpus):
    corpus, _, _ = corpus
    text = bytes(corpus.tokens[corpus.tokens != corpora.BOS].astype("uint8")).decode()
    words = text.lower().split()
    assert 0.04 < words.count("the") / len(words) < 0.1
    assert ">>>" not in text.replace("``>>>``", "")
    assert sum(char.isalpha() or char.isspace() for char in text) > 0.9 * len(text)


def test_a_written_corpus_outlives_the_packages(corpus, monkeypatch):
    corpus, _, folder = corpus

    def no_source(config):
        raise AssertionError("the source was read again")

    monkeypatch.setattr(documents, "read", no_source)
    again = corpora.open_corpus(folder)
    assert again.fingerprint == corpus.fingerprint
