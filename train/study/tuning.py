"""Tuning: the score of every cell at every rate, the rate that each keeps, and whether the rates must extend.

A score is a loss, or the steps that are needed; lower is better. What is chosen is a pure function of what the cells
have trained, so a resume finds the same. A rate that is added is added for every cell that is tuned with it, so all of
them are tuned alike.
"""

import collections
import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from train import grid
from train.config import StudyConfig
from train.data.corpora import Corpus, unigram_entropy
from train.run import metrics, packs
from train.workdir import CellFolder, Workdir

FACTOR = 2.0  # between a single rate and the one that extends it


class Tried(NamedTuple):
    """What the choosing runs of a cell at one rate came to.

    Attributes:
      runs: how many there are.
      score: lower is better; a number, or several of which the later decide where the earlier tie.
      diverged: whether all of them did.
    """

    runs: int
    score: float | tuple[float, ...]
    diverged: bool


Score = Callable[[CellFolder], dict[float, Tried]]


class Tuning(NamedTuple):
    """What the choosing runs of cells that are tuned together have shown so far.

    Attributes:
      rates: every rate that all cells are to try, ascending: the config's, and those that extended them.
      scores: of each cell, by rate.
      chosen: of each cell that has tried a rate, the one of lowest score; one at which all runs diverged only where no
        other is, the smaller of two that tie.
      lacking: cells that have not tried every rate with every choosing seed.
    """

    rates: tuple[float, ...]
    scores: dict[str, dict[float, float | tuple[float, ...]]]
    chosen: dict[str, float]
    lacking: tuple[str, ...]

    def edge(self, cell: str) -> str:
        """The end of the tried rates that the cell's choice lies at: 'lowest', 'highest', 'only', or '' inside."""
        tried, chosen = self.scores[cell], self.chosen[cell]
        low, high = chosen == min(tried), chosen == max(tried)
        return "only" if low and high else "lowest" if low else "highest" if high else ""


def read(config: StudyConfig, workdir: Workdir, cells: tuple[grid.Cell, ...], score: Score) -> Tuning:
    """The tuning of `cells`, all that are tuned together: one that `workdir` says failed does not hold up the
    others."""
    tried = {cell.name: score(workdir.cell(cell.name)) for cell in cells}
    failed = {cell.name for cell in cells if workdir.cell(cell.name).failed}
    rates, added = tuple(sorted(config.grid.learning_rates)), {"lowest": 0, "highest": 0}
    while True:
        scores, chosen, lacking = {}, {}, []
        for name, by_rate in tried.items():
            most = max((each.runs for rate, each in by_rate.items() if rate in rates), default=0)
            whole = {rate: by_rate[rate] for rate in rates if most and rate in by_rate and by_rate[rate].runs == most}
            scores[name] = {rate: each.score for rate, each in whole.items()}
            if whole:
                finished = [rate for rate, each in whole.items() if not each.diverged]
                chosen[name] = best_rate({rate: scores[name][rate] for rate in finished or whole})
            if most < len(grid.choosing_seeds(config)) or len(whole) < len(rates):
                lacking.append(name)
        tuning = Tuning(rates, scores, chosen, tuple(lacking))
        if set(lacking) - failed:
            return tuning
        edges = {tuning.edge(name) for name in chosen if name not in lacking}
        ends = [end for end in added if {end, "only"} & edges and added[end] < config.grid.extensions]
        if not ends:
            return tuning
        for end in ends:
            added[end] += 1
            rates = _extended(rates, end)


def best_rate(scores: dict[float, float | tuple[float, ...]]) -> float:
    """The rate of the lowest score, the smaller of two that tie."""
    return min(scores, key=lambda rate: (scores[rate], rate))


def score_of(config: StudyConfig, corpus: Corpus | None) -> Score:
    """What a study's cells are tuned by."""
    return by_steps(config) if corpus is None else by_loss(config, corpus)


def by_loss(config: StudyConfig, corpus: Corpus) -> Score:
    """The mean tune loss in nats/token; a diverged run counts as the unigram entropy of the training split."""
    unigram = unigram_entropy(corpus)
    first, last = corpus.splits["tune"]
    tokens = float(corpus.num_tokens[first:last].sum())

    def score(folder: CellFolder) -> dict[float, Tried]:
        by_rate = collections.defaultdict(list)
        for replica, trained, place in _choosing(folder, config):
            diverged = trained["diverged_at"][place] >= 0
            loss = unigram if diverged else trained["tune_losses"][place] / tokens
            by_rate[replica.learning_rate].append((loss, diverged))
        return _tried(by_rate, lambda losses: sum(losses) / len(losses))

    return score


def by_steps(config: StudyConfig) -> Score:
    """The median T, and of rates that tie the mean relational loss at the last look that all runs of the cell had.

    T of a run is the cap where the threshold was not reached, the step where it was stopped as hopeless.
    """

    def score(folder: CellFolder) -> dict[float, Tried]:
        curves, by_rate = collections.defaultdict(dict), collections.defaultdict(list)
        for line in metrics.read(folder.looks):
            curves[line["replica"]][line["step"]] = line["loss"]
        runs = [
            (replica, trained["outcomes"][place], trained["diverged_at"][place] >= 0)
            for replica, trained, place in _choosing(folder, config)
        ]
        common = set.intersection(*(set(curves[replica.name]) for replica, *_ in runs)) if runs else set()
        for replica, ended, diverged in runs:
            loss = curves[replica.name][max(common)] if common else None
            by_rate[replica.learning_rate].append((ended["steps"], np.inf if loss is None else loss, diverged))
        return _tried(by_rate, lambda steps, losses: (statistics.median(steps), float(np.mean(losses))))

    return score


def _tried(by_rate: dict[float, list[tuple]], score: Callable) -> dict[float, Tried]:
    """By rate, from columns of its runs, the last of which says whether they diverged; `score` is of the others."""
    columns = {rate: tuple(zip(*runs, strict=True)) for rate, runs in by_rate.items()}
    return {rate: Tried(len(lost), score(*values), all(lost)) for rate, (*values, lost) in columns.items()}


def _choosing(folder: CellFolder, config: StudyConfig) -> Iterable[tuple[grid.Replica, dict, int]]:
    """The trained runs that choose a rate, each with the record of its pack's training and its place there."""
    seeds = grid.choosing_seeds(config)
    for pack, trained in packs.read(folder):
        for place, replica in enumerate(pack.replicas if trained else ()):
            if (replica.init_seed, replica.data_seed) in seeds and replica.start == grid.DRAWN:
                yield replica, trained, place


def passed_over(tuned: Tuning, cells: Iterable[grid.Cell]) -> dict[str, str]:
    """The cells that another logit scale of the same shape beats on the tune loss, each with the one that does."""
    tried = [cell for cell in cells if cell.name in tuned.chosen]
    lowest = {cell.name: tuned.scores[cell.name][tuned.chosen[cell.name]] for cell in tried}
    best = {}
    for name, shape in sorted(((cell.name, cell.shape) for cell in tried), key=lambda pair: lowest[pair[0]]):
        best.setdefault(shape, name)
    return {cell.name: best[cell.shape] for cell in tried if best[cell.shape] != cell.name}


def _extended(rates: tuple[float, ...], end: str) -> tuple[float, ...]:
    """`rates`, ascending, with one more at an end. It goes on as the ladder does, .0003 below .001, .003 and .01, where
    every second ratio is another; two rates, or one, have one ratio."""
    near = (rates if end == "lowest" else rates[::-1])[:3]
    factor = near[-2] / near[-1] if len(rates) > 1 else FACTOR ** (-1 if end == "lowest" else 1)
    return tuple(sorted((*rates, float(f"{near[0] * factor:.4g}"))))
