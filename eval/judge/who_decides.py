"""Who decides which head learns what: a verdict on the runs of a crossed grid, from how far their heads agree (C9)."""

import dataclasses
import math

import numpy as np
import pandas as pd

from eval.heads.composition import factorial
from eval.heads.composition.factorial import MORE, PARTS, Runs, Share
from eval.judge import intervals, rules
from eval.judge.evidence import Evidence
from eval.judge.single import by_model
from eval.judge.verdict import Shown, Verdict
from train import grid

INDEX, MATCHED = "by_index", "matched"
FEWEST = 5  # init seeds, and data seeds, of which shares are judged
RULE = (
    "agreement: mean correlation of heads' attention on the same prompts of test; share of init: how much more runs "
    "agree that share the init alone than runs that share neither seed, over what those lack to 1; share of data: the "
    "same; supported: the 95 % interval of the share of init less that of data, both seeds resampled, is above 0; "
    "refuted: below 0; else undecided: not told apart; fewer than {fewest} init seeds or data seeds: not testable; "
    "{labels}; the cell is claims.cell, or of the largest d_model that of the lowest tune loss with several heads"
)
LABELS = {
    INDEX: "heads are compared by their number in the layer",
    MATCHED: "heads are matched within a layer on half of the prompts and compared on the other",
}
OUTCOMES = {"init": rules.SUPPORTED, "data": rules.REFUTED, "": rules.UNDECIDED}


def applies(evidence: Evidence) -> str:
    if evidence.config.grid.seeds != "crossed":
        return "Who decides takes init and data apart, grid.seeds=crossed."
    return "" if len(by_model.rows(evidence, "stability")) else "No two runs of a cell are compared yet."


def runs_of(rows: pd.DataFrame, label: str) -> Runs:
    """The runs of one cell, from rows of results/stability.parquet, the mean over layers."""
    pairs = rows.groupby(["replica", "other"], sort=False)[label].mean()
    sides = [
        rows[list(names)].set_axis(["name", "init", "data", "start"], axis=1)
        for names in (
            ("replica", "init_seed", "data_seed", "start"),
            ("other", "other_init", "other_data", "other_start"),
        )
    ]
    about = pd.concat(sides).drop_duplicates("name").sort_values(["start", "init", "data"], ignore_index=True)
    place = {name: number for number, name in enumerate(about.name)}
    apart = np.zeros((len(about), len(about)))
    for (one, other), value in pairs.items():
        apart[place[one], place[other]] = apart[place[other], place[one]] = 1 - value
    again = (about.start == grid.PERTURBED).to_numpy()
    return Runs(about.init.to_numpy(), about.data.to_numpy(), again, apart)


def last(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last step."""
    return rows[rows.step == rows.groupby("cell").step.transform("max")]


def content(runs: Runs) -> tuple[intervals.Interval, intervals.Interval]:
    """Where data seeds read disjoint halves of train: agreement of runs that share the init and the half but not the
    order, and by how much it exceeds that of runs that share the init alone, each a t over init seeds."""
    first = ~runs.again
    same, less = [], []
    for init in np.unique(runs.init):
        mine = np.flatnonzero(first & (runs.init == init))
        one, other = (each.ravel() for each in np.meshgrid(mine, mine))
        pairs = runs.data[one] < runs.data[other]
        half = runs.data[one] % 2 == runs.data[other] % 2
        if (pairs & half).any() and (pairs & ~half).any():
            agree = 1 - runs.apart[one, other]
            same.append(agree[pairs & half].mean())
            less.append(same[-1] - agree[pairs & ~half].mean())
    if not same:
        return (intervals.Interval(math.nan, math.nan, math.nan),) * 2
    return intervals.over_seeds(np.array(same)), intervals.over_seeds(np.array(less))


def judge(evidence: Evidence, claim: tuple[str, str], label: str, decided: str) -> Verdict:
    """The verdict on a claim that the init decides more than the data.

    Args:
      claim: its ID and what is claimed.
      label: INDEX or MATCHED.
      decided: what init or data decides, in words.
    """
    rows, answering = last(by_model.rows(evidence, "stability")), by_model.primary(evidence)
    rule = RULE.format(fewest=FEWEST, labels=LABELS[label])
    parts = tuple(_part(evidence, cell, mine, label) for cell, mine in rows.groupby("cell", sort=False))
    part = next((part for part in parts if part["name"] == answering), parts[0])
    lacks = (part["why"],) if part["why"] else ()
    more, n = part["shares"][MORE], min(part["inits"], part["orders"])
    base = Verdict(*claim, part["verdict"], "", rule, 0.0, 0.95, *more[:3], n=n, missing=lacks, parts=parts)
    return dataclasses.replace(
        base,
        sentence=_sentence(evidence, part, decided),
        notes=tuple(_notes(evidence, part)),
        details={"label": label, "cell": part["name"], "content": _halves(evidence, rows, part["name"], label)},
        shown=_shown(part),
    )


def _part(evidence: Evidence, cell: str, rows: pd.DataFrame, label: str) -> dict:
    """What the runs of one cell say, in numbers."""
    runs = runs_of(rows, label)
    found = factorial.shares(runs)
    first = list(zip(runs.init[~runs.again], runs.data[~runs.again], strict=True))
    inits, orders = (len(np.unique(each)) for each in (runs.init, runs.data))
    lost = sorted(set(by_model.seeds(evidence)) - {(int(init), int(data)) for init, data in first})
    few = min(inits, orders) < FEWEST
    return {
        "name": cell,
        "verdict": rules.UNDECIDED if few else OUTCOMES[factorial.told_apart(found[MORE])],
        "why": f"It takes {FEWEST} init seeds and {FEWEST} data seeds, and there are {inits} and {orders}." * few,
        "inits": inits,
        "orders": orders,
        "runs": len(first),
        "again": int(runs.again.sum()),
        "lost": [list(pair) for pair in lost],
        "left_out": int(rows.groupby("layer").left_out.max().sum()),
        "agreement": {name: _number(1 - value) for name, value in factorial.means(runs).items()},
        "shares": {name: tuple(map(_number, share)) for name, share in found.items()},
        "layers": {
            int(layer): {name: _number(share.share) for name, share in _of_layer(mine, label).items()}
            for layer, mine in rows.groupby("layer")
        },
    }


def _of_layer(rows: pd.DataFrame, label: str) -> dict[str, Share]:
    return factorial.shares(runs_of(rows, label))


def _halves(evidence: Evidence, rows: pd.DataFrame, cell: str, label: str) -> dict | None:
    if evidence.config.train.windows != "halves":
        return None
    same, less = content(runs_of(rows[rows.cell == cell], label))
    return {"same_half": _number(same.mean), "less": _number(less.mean), "low": _number(less.low),
            "high": _number(less.high)}  # fmt: skip


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _said(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def _sentence(evidence: Evidence, part: dict, decided: str) -> str:
    source, agree = evidence.corpus.source, {name: _said(value) for name, value in part["agreement"].items()}
    of = f"On {source}, {part['name']}, {part['inits']} init seeds by {part['orders']} data orders"
    share = {name: _said(part["shares"][name][0]) for name in PARTS}
    split = (
        f"{decided}: heads agree {agree['init']} where runs share the init alone, {agree['data']} where they share the "
        f"order alone, {agree['neither']} where neither; shares of init {share['init']}, data {share['data']}, both "
        f"together {share['interaction']}, chaos {share['chaos']}."
    )
    if part["why"]:
        return f"{of}: not testable. {part['why']} {split[0].upper()}{split[1:]}"
    outcome = {
        rules.SUPPORTED: "the init decides more than the order of the data",
        rules.REFUTED: "the order of the data decides more than the init",
        rules.UNDECIDED: "init and order are not told apart",
    }
    return f"{of}: {outcome[part['verdict']]} {split}"


def _notes(evidence: Evidence, part: dict):
    if part["lost"]:
        named = ", ".join(f"({init}, {data})" for init, data in part["lost"])
        yield (
            f"{len(part['lost'])} of {part['runs'] + len(part['lost'])} runs diverged or are not there, of (init seed, "
            f"data seed) {named}; means are over the pairs that remain."
        )
    if part["left_out"]:
        yield "Heads that write nothing are left out of the comparison."
    if not part["again"]:
        yield "No run was run again from perturbed weights (grid.repeats), so interaction and chaos are not told apart."
    if evidence.config.train.windows == "halves":
        yield "Even and odd data seeds read disjoint halves of train: 'data' is order and, half of the time, content."


def _shown(part: dict) -> Shown:
    more = part["shares"][MORE]
    said = [
        f"Share of {name}: {_said(share[0])}"
        + (f" ({_said(share[1])} to {_said(share[2])})" if share[1] is not None else "")
        + (f"; in permuted tables {_said(share[4])}, p = {share[3]:.3f}" if share[3] is not None else "")
        + "."
        for name, share in part["shares"].items()
        if share[0] is not None
    ]
    if more[1] is None:
        return Shown(more=tuple(said))
    return Shown(
        f"{_said(more[0])} ({_said(more[1])} to {_said(more[2])})",
        "share of init less that of data, of what runs that share neither differ by",
        tuple(said),
    )
