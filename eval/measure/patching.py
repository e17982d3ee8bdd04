"""What the loss rises by where the heads of a role read what its sources write for another document."""

from collections.abc import Iterator

import jax
import numpy as np
import pandas as pd

from eval.heads.composition import circuits, patching, scores
from eval.heads.composition.patching import Windows
from eval.restore import Restored
from mha.transformer import ModelConfig
from train.config import StudyConfig
from train.data.corpora import Corpus, eval_windows

IN_STUDY = False
NEEDS = ("composition", "roles")
MOST_WINDOWS = 256  # of the split, evenly spread over it
ABOUT = ["replica", "role", "layer", "readers", "kind", "decides", "what", "sources", "reader"]
COLUMNS = [*ABOUT, "document", "tokens", "rise"]


def lacks(config: StudyConfig, model: ModelConfig) -> str:
    if config.dose.relations:
        return "patching is on the documents of a corpus, and here every seed speaks a language of its own."
    if not model.causal:
        return "patching follows the loss of the next token, and this model is masked."
    return "" if model.num_layers > 1 else "a head that builds on another takes two layers, and this model has one."


def settings(config: StudyConfig) -> dict:
    return {"batch_size": config.eval.batch_size}


def measure_cell(packs: list[Restored], split: str, chosen: dict, needed: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """On `test` alone, a row a replica, role that a head above the first layer is called by, patch and source file: in
    what `layer` which heads read it (`readers`), for which input (`kind`) they or one `reader` read it, whether it
    `decides` C7, `what` is patched (eval.heads.composition.circuits), its `sources`, the file's `tokens`, and by how
    many nats the loss of all of them rises, of random sources the mean over their sets.
    """
    roles, tables = needed["roles"], [pd.DataFrame(columns=COLUMNS)]
    if split == "test" and len(roles):
        windows, files = windows_of(packs[0].corpus, split, packs[0].pack.model.seq_len)
        for pack in packs:
            for row, replica in enumerate(pack.pack.replicas):
                called = roles[(roles.replica == replica.name) & (roles.called == True) & (roles["head"] >= 0)]  # noqa: E712
                reading = list(readers_of(called))
                if reading:
                    own = jax.device_get(pack.params_of(row))
                    rows = of_replica(pack.pack.model, own, windows, files, reading, chosen["batch_size"])
                    tables.append(rows.assign(replica=replica.name)[COLUMNS])
    return pd.concat(tables[1:] or tables, ignore_index=True)


def readers_of(called: pd.DataFrame) -> Iterator[circuits.Readers]:
    """Of each role the heads that read for it, given the rows of the heads that are called by one."""
    for role, rows in called.groupby("role"):
        effects = dict(zip(zip(rows.layer, rows["head"], strict=True), rows.effect, strict=True))
        reading = circuits.readers(role, effects)
        if reading is not None:
            yield reading


def windows_of(corpus: Corpus, split: str, seq_len: int) -> tuple[Windows, np.ndarray]:
    """At most MOST_WINDOWS windows, and the source file of each."""
    seen = eval_windows(corpus, split, seq_len)
    count = len(seen.length)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_WINDOWS)).round().astype(int))
    tokens, length, document = (np.asarray(part)[chosen] for part in (seen.tokens, seen.length, seen.document))
    names = np.array([corpus.file_of(corpus.names[each]) for each in document])
    return Windows(tokens, length, document, patching.partners(length, document)), names


def of_replica(
    model: ModelConfig,
    params: dict,
    windows: Windows,
    files: np.ndarray,
    reading: list[circuits.Readers],
    batch_size: int = 32,
) -> pd.DataFrame:
    """The rows of one replica, less its name.

    Args:
      files: the source file of each window.
      reading: of each role the heads that bear it.
    """
    z, norms = scores.compositions(params).z, patching.output_norms(model, params, windows, batch_size)
    tables = []
    for each in reading:
        patches = circuits.plan(each, z, norms)
        rise_CB = patching.rises(model, params, windows, each.layer, [one.condition for one in patches], batch_size)
        for patch, rise_B in zip(patches, rise_CB, strict=True):
            of_file = pd.DataFrame({"document": files, "tokens": windows.length, "rise": rise_B})
            of_file = of_file.groupby("document", sort=False, as_index=False).sum()
            (kind, target), random = patch.condition[1:3], patch.what == circuits.RANDOM
            about = {"role": each.role, "layer": each.layer, "readers": _named((each.layer, h) for h in each.heads)}
            about |= {"kind": kind, "decides": patch.decides, "what": patch.what}
            about |= {"sources": "" if random else _named(patch.condition.sources)}
            about |= {"reader": "" if target is None else _named([(each.layer, target)])}
            tables.append(of_file.assign(**about))
    rows = pd.concat(tables, ignore_index=True)
    keys = [name for name in (*ABOUT[1:], "document") if name in rows]
    return rows.groupby(keys, sort=False, as_index=False)[["tokens", "rise"]].mean()


def _named(heads) -> str:
    return " ".join(f"{layer}.{head}" for layer, head in heads)
