"""Tuning: the mean tune loss of every cell at every rate, the rate that each keeps, and whether the grid must extend.

A pure function of what the cells have trained, so a resume finds the same rates and choices. A rate that is added is
added for every cell, so all cells are tuned alike.
"""

import dataclasses
from collections.abc import Iterable

from train.config import StudyConfig
from train.data.baselines import unigram_entropy
from train.data.corpora import Corpus
from train.grid import Cell, choosing_seeds
from train.run import packs
from train.workdir import CellFolder, Workdir

FACTOR = 2.0  # between a single rate and the one that extends it


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What the choosing runs of a study have shown so far.

    Attributes:
      rates: every rate that all cells are to try, ascending: the config's, and those that extended them.
      losses: of each cell, its mean tune loss in nats/token at each rate tried; a diverged run counts as the unigram
        entropy of the training split.
      chosen: of each cell that has tried a rate, the one of lowest loss; one at which all runs diverged only where no
        other is, the smaller of two that tie.
      lacking: cells that have not tried every rate with every choosing seed.
    """

    rates: tuple[float, ...]
    losses: dict[str, dict[float, float]]
    chosen: dict[str, float]
    lacking: tuple[str, ...]

    def edge(self, cell: str) -> str:
        """The end of the tried rates that the cell's choice lies at: 'lowest', 'highest', 'only', or '' inside."""
        tried, chosen = self.losses[cell], self.chosen[cell]
        low, high = chosen == min(tried), chosen == max(tried)
        return "only" if low and high else "lowest" if low else "highest" if high else ""


def read(config: StudyConfig, workdir: Workdir, cells: tuple[Cell, ...], corpus: Corpus) -> Tuning:
    """The tuning of `cells`, all of the grid: one that `workdir` says failed does not hold up the others."""
    seeds, unigram = choosing_seeds(config), unigram_entropy(corpus)
    first, last = corpus.splits["tune"]
    tokens = float(corpus.num_tokens[first:last].sum())
    tried = {cell.name: _tried(workdir.cell(cell.name), seeds, unigram, tokens) for cell in cells}
    failed = {cell.name for cell in cells if workdir.cell(cell.name).failed}
    rates, added = tuple(sorted(config.grid.learning_rates)), {"lowest": 0, "highest": 0}
    while True:
        losses, chosen, lacking = {}, {}, []
        for name, runs in tried.items():
            most = max((len(found) for rate, found in runs.items() if rate in rates), default=0)
            whole = {rate: runs[rate] for rate in rates if most and len(runs.get(rate, ())) == most}
            losses[name] = {rate: sum(loss for loss, _ in found) / most for rate, found in whole.items()}
            finished = [rate for rate, found in whole.items() if not all(diverged for _, diverged in found)]
            if whole:
                chosen[name] = best_rate({rate: losses[name][rate] for rate in finished or whole})
            if most < len(seeds) or len(whole) < len(rates):
                lacking.append(name)
        tuning = Tuning(rates, losses, chosen, tuple(lacking))
        if set(lacking) - failed:
            return tuning
        edges = {tuning.edge(name) for name in chosen if name not in lacking}
        ends = [end for end in added if {end, "only"} & edges and added[end] < config.grid.extensions]
        if not ends:
            return tuning
        for end in ends:
            added[end] += 1
            rates = _extended(rates, end)


def best_rate(losses: dict[float, float]) -> float:
    """The rate of lowest mean tune loss, the smaller of two that tie."""
    return min(losses, key=lambda rate: (losses[rate], rate))


def passed_over(tuned: Tuning, cells: Iterable[Cell]) -> dict[str, str]:
    """The cells that another logit scale of the same shape beats on the tune loss, each with the one that does."""
    best: dict[str, str] = {}
    tried = [cell for cell in cells if cell.name in tuned.chosen]
    lowest = {cell.name: tuned.losses[cell.name][tuned.chosen[cell.name]] for cell in tried}
    for cell in tried:
        if cell.shape not in best or lowest[cell.name] < lowest[best[cell.shape]]:
            best[cell.shape] = cell.name
    return {cell.name: best[cell.shape] for cell in tried if best[cell.shape] != cell.name}


def _tried(folder: CellFolder, seeds: Iterable, unigram: float, tokens: float) -> dict[float, list[tuple[float, bool]]]:
    """(loss, whether it diverged) of each choosing run, by rate."""
    found = {}
    for record in folder.packs():
        trained = record["trained"]
        if trained is None:
            continue
        runs = zip(packs.from_json(record).replicas, trained["tune_losses"], trained["diverged_at"], strict=True)
        for replica, summed, diverged_at in runs:
            if (replica.init_seed, replica.data_seed) in seeds:
                diverged = diverged_at >= 0
                loss = unigram if diverged else summed / tokens
                found.setdefault(replica.learning_rate, []).append((loss, diverged))
    return found


def _extended(rates: tuple[float, ...], end: str) -> tuple[float, ...]:
    """`rates`, ascending, with one more at an end, as far from it as its neighbour is."""
    if end == "lowest":
        ratio = rates[1] / rates[0] if len(rates) > 1 else FACTOR
        return (float(f"{rates[0] / ratio:.4g}"), *rates)
    ratio = rates[-1] / rates[-2] if len(rates) > 1 else FACTOR
    return (*rates, float(f"{rates[-1] * ratio:.4g}"))
