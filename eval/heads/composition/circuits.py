"""What is patched to ask which heads a role is built from: the sources of the highest scores, others like them, and
single edges."""

from typing import NamedTuple

import numpy as np

from eval.heads.composition import patching, scores
from eval.heads.composition.patching import Condition

SHARE = 4  # one in so many of the heads below is a top source, one at least
DRAWS = 5  # of random sources
MOST_SOURCES, MOST_READERS = 8, 4  # shown one by one
TOP, RANDOM, DIRECT, SOURCE, EDGE = (
    "top sources",
    "random sources",
    "top sources, direct path",
    "one source",
    "one edge",
)


class Readers(NamedTuple):
    """The heads that bear a role in one layer, those that bear it best first."""

    role: str
    layer: int
    heads: tuple[int, ...]


class Patch(NamedTuple):
    """A condition, and what it is for: TOP, RANDOM, DIRECT, SOURCE or EDGE; `decides` where C7 is decided by it."""

    what: str
    condition: Condition
    decides: bool = False


def readers(role: str, effects: dict[tuple[int, int], float]) -> Readers | None:
    """Of the layers above the first that hold a role, the one where its effects add up to most; None of no such layer.

    Args:
      effects: of each head, (layer, head), that bears it.
    """
    above = {place: effect for place, effect in effects.items() if place[0] > 0}
    if not above:
        return None
    sums = {layer: sum(value for place, value in above.items() if place[0] == layer) for layer, _ in above}
    layer = max(sorted(sums), key=sums.get)
    heads = sorted((head for at, head in above if at == layer), key=lambda head: -above[layer, head])
    return Readers(role, layer, tuple(heads))


def plan(reading: Readers, z: np.ndarray, norms: np.ndarray, seed: int = 0) -> list[Patch]:
    """The conditions that ask where `reading` has its role from.

    For each input the top sources, of the highest summed z, and DRAWS sets of random ones; the input at which the top
    sources score highest in the mean decides, which weights alone say. For that input the direct path, and the first
    sources and edges one by one.

    Args:
      z: (3, N, N) of scores.Compositions.
      norms: (L, H), what each head writes.
    """
    layers, heads = norms.shape
    below, patches, scored = reading.layer * heads, [], {}
    targets = [reading.layer * heads + head for head in reading.heads]
    for kind, z_SN in zip(scores.KINDS, z[:, :below][:, :, targets], strict=True):
        top = patching.top_sources(z_SN, max(1, below // SHARE))
        if top:
            scored[kind] = np.nansum(z_SN[top], axis=1).mean(), top
    deciding = max(scored, key=lambda kind: scored[kind][0], default="")
    named = lambda sources: tuple((source // heads, source % heads) for source in sources)  # noqa: E731
    for kind, (_, top) in scored.items():
        patches.append(Patch(TOP, Condition(named(top), kind), kind == deciding))
        for drawn in patching.random_sources(top, norms.ravel()[:below], DRAWS, seed):
            patches.append(Patch(RANDOM, Condition(named(drawn), kind), kind == deciding))
        if kind == deciding:
            patches.append(Patch(DIRECT, Condition(named(top), kind, direct=True)))
            for source in named(top[:MOST_SOURCES]):
                patches.append(Patch(SOURCE, Condition((source,), kind)))
                patches += [Patch(EDGE, Condition((source,), kind, head)) for head in reading.heads[:MOST_READERS]]
    return patches
