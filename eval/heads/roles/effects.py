"""From sums to effects: how far a head's attention on a role's keys lies above what it would have there anyway.

Content roles (claims.md C5): effect = (mass - ref) / (1 - ref), where mass is the mean attention of queries with a link
on their linked keys and ref is the largest of three references. Positional roles: the mass at an offset, or, `local`,
the mass on the three tokens before less a uniform row's.

Dimension key: L layer, H head, F file, C reference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from eval.heads.roles.sums import NEAR, Sums
from eval.heads.roles.texts import FEWEST_LINKS
from eval.judge.intervals import ENOUGH_DOCUMENTS, effective_documents

REFERENCES = ("best offset", "permuted texts", "elsewhere")
PREVIOUS, NEXT, OFFSET, LOCAL = "previous token", "next token", "fixed offset", "local"
ALPHA = 0.05


class Effects(NamedTuple):
    """One role of the heads of one model; arrays (L, H).

    Attributes:
      mass: mean attention on the role's keys.
      top: share of queries whose largest weight is on one of them; nan of a role without links.
      reference: the largest reference, 0 of a positional role; `which` its place in REFERENCES.
      effect, error: above that reference, with the standard error over files.
      low, high: its 95 % interval, a t over files.
      above: one-sided p of an effect of at most the threshold, the largest over the references.
      least: lower limit of the effect, simultaneous over the heads.
      most: upper limit, simultaneous over the heads and references.
      queries: with a link.
      files: effective number of files, 1 / sum of squared shares of queries; t has one degree of freedom less.
    """

    mass: np.ndarray
    top: np.ndarray
    reference: np.ndarray
    which: np.ndarray
    effect: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    above: np.ndarray
    least: np.ndarray
    most: np.ndarray
    queries: int
    files: float

    @property
    def enough(self) -> bool:
        """Whether there are links and files enough to say anything by."""
        return self.queries >= FEWEST_LINKS and self.files >= ENOUGH_DOCUMENTS


def content(sums: Sums, relation: int, at_offset_F: np.ndarray, threshold: float) -> Effects:
    """A relation's effects above the three references.

    Args:
      at_offset_F: queries of each file that have a linked key at the role's best fixed offset, chosen on other texts.
    """
    shape = sums.mass_RLHF[relation].shape
    references = np.broadcast_to(at_offset_F, shape), sums.permuted_RLHF[relation], sums.elsewhere_RLHF[relation]
    return effects(*_of_relation(sums, relation), references, threshold, sums.top_RLHF[relation])


def positional(sums: Sums, name: str, threshold: float) -> Effects:
    """The effects of PREVIOUS, NEXT, OFFSET (at the offset that each head was given) or LOCAL."""
    mass = {
        PREVIOUS: lambda: sums.near_OLHF[NEAR.index(1)],
        NEXT: lambda: sums.next_LHF,
        OFFSET: lambda: sums.own_LHF,
        LOCAL: lambda: sums.near_OLHF.sum(axis=0) - sums.uniform_F,
    }[name]()
    return effects(sums.tokens_F, mass, (), threshold)


def fixed(sums: Sums, relation: int, threshold: float) -> Effects:
    """The effects of a relation that one offset defines: a positional role, which has no reference."""
    return effects(*_of_relation(sums, relation), (), threshold, sums.top_RLHF[relation])


def _of_relation(sums: Sums, relation: int) -> tuple[np.ndarray, np.ndarray]:
    return sums.queries_RF[relation], sums.mass_RLHF[relation]


def effects(
    queries_F: np.ndarray,
    mass_LHF: np.ndarray,
    references: Sequence,
    threshold: float,
    top_LHF: np.ndarray | None = None,
) -> Effects:
    """Effects from sums over the queries of each file; each of `references` is (L, H, F) like the mass.

    The effect above a reference is a ratio of sums over files, sum(mass - ref) / sum(queries - ref); its error is the
    linearised one (Cochran 1977, section 6.5).
    """
    asked = queries_F > 0
    count_F, mass_LHF = queries_F[asked], mass_LHF[..., asked]
    references_CLHF = np.stack([np.zeros_like(mass_LHF)] if not len(references) else references).copy()
    references_CLHF = references_CLHF if not len(references) else references_CLHF[..., asked]
    heads, total, files = mass_LHF[..., 0].size if asked.any() else 0, count_F.sum(), int(asked.sum())
    if not heads:
        none = np.full(mass_LHF.shape[:2], np.nan)
        return Effects(*[none] * 3, np.zeros(none.shape, int), *[none] * 7, 0, 0.0)
    room_CLHF = count_F - references_CLHF
    room_CLH = np.maximum(room_CLHF.sum(axis=-1), 1e-9 * total)
    effect_CLH = (mass_LHF - references_CLHF).sum(axis=-1) / room_CLH
    off_CLHF = mass_LHF - references_CLHF - effect_CLH[..., None] * room_CLHF
    error_CLH = np.sqrt(files / max(files - 1, 1) * (off_CLHF**2).sum(axis=-1)) / room_CLH
    effective = effective_documents(count_F)
    freedom = max(effective - 1, 1.0)
    error_CLH = np.maximum(error_CLH, 1e-12) if files > 1 else np.full_like(error_CLH, np.inf)
    above_CLH = scipy.stats.t.sf((effect_CLH - threshold) / error_CLH, freedom)
    simultaneous = lambda tests: scipy.stats.t.isf(ALPHA / tests, freedom)  # noqa: E731
    reach, tests = scipy.stats.t.isf(ALPHA / 2, freedom), max(len(references), 1)
    which = effect_CLH.argmin(axis=0)
    of_largest = lambda values: np.take_along_axis(values, which[None], axis=0)[0]  # noqa: E731
    effect, error = of_largest(effect_CLH), of_largest(error_CLH)
    return Effects(
        mass_LHF.sum(axis=-1) / total,
        np.full(which.shape, np.nan) if top_LHF is None else top_LHF.sum(axis=-1) / total,
        of_largest(references_CLHF.sum(axis=-1)) / total,
        which,
        effect,
        error,
        effect - reach * error,
        effect + reach * error,
        above_CLH.max(axis=0),
        (effect_CLH - simultaneous(heads) * error_CLH).min(axis=0),
        (effect_CLH + simultaneous(heads * tests) * error_CLH).min(axis=0),
        int(round(total)),
        effective,
    )


def best_offsets(sums: Sums, apart: Sequence[int]) -> np.ndarray:
    """The offset of each head, int (L, H), at which its attention is largest, those of `apart` left out."""
    return _apart(sums, apart).argmax(axis=2) - (sums.offsets_LHO.shape[2] - 1) // 2


def at_best_offset(sums: Sums, apart: Sequence[int]) -> np.ndarray:
    """The attention of each head there, (L, H), in the mean over all queries: few at a far offset count little."""
    return _apart(sums, apart).max(axis=2)


def _apart(sums: Sums, apart: Sequence[int]) -> np.ndarray:
    last = (sums.offsets_LHO.shape[2] - 1) // 2
    means = np.nan_to_num(sums.offsets_LHO * sums.reach_O, nan=-np.inf)
    means[..., [last + offset for offset in apart if abs(offset) <= last]] = -np.inf
    return means
