"""Who decides which head learns what: how far the heads of runs agree that share init, data, both or neither."""

import pandas as pd

from eval.heads.composition import factorial
from eval.heads.composition.factorial import MORE, PARTS
from eval.judge import who_decides
from eval.judge.claims import c9a_slot, c9b_roles
from eval.judge.evidence import Evidence
from eval.judge.single import by_model
from eval.report import head_figures
from eval.report.style import Drawn

TABLES = ("stability",)
CLAIMS = {c9a_slot.ID: (who_decides.INDEX, "by index"), c9b_roles.ID: (who_decides.MATCHED, "matched")}
KINDS = {"init": "the same init", "data": "the same data", "neither": "neither", "again": "init a millionth off"}


def context(evidence: Evidence, verdicts) -> dict | None:
    parts = _parts(verdicts)
    if not parts:
        return None
    return {
        "rows": [
            {"label": CLAIMS[name][1], **part, "content": content, "parts": [part["shares"][each] for each in PARTS]}
            for name, part, content in parts
        ],
        "kinds": KINDS,
        "names": PARTS,
    }


def figures(evidence: Evidence, verdicts) -> dict[str, Drawn]:
    every, made = by_model.rows(evidence, "stability"), {}
    rows = who_decides.last(every) if len(every) else every
    for name, part, _ in _parts(verdicts):
        label, words = CLAIMS[name]
        runs = who_decides.runs_of(rows[rows.cell == part["name"]], label)
        made[f"agreement_{label}"] = Drawn(
            head_figures.agreement(runs, f"{part['name']}, heads {words}"),
            f"Agreement of each two runs, heads {words}; runs in the order of their init seeds, then of their data.",
        )
    shares = pd.DataFrame(
        [
            {"label": CLAIMS[name][1], "part": each, "share": ends[0], "low": ends[1], "high": ends[2]}
            for name, part, _ in _parts(verdicts)
            for each, ends in part["shares"].items()
            if each != MORE and ends[0] is not None
        ]
    )
    if every.step.nunique() > 1 and made:
        made["agreement_steps"] = Drawn(
            head_figures.steps(_over_steps(every, _parts(verdicts))), "Shares of init and data over training."
        )
    if len(shares):
        made["agreement_shares"] = Drawn(head_figures.shares(shares), "Shares of init, data, both together and chaos.")
    return made


def _over_steps(rows: pd.DataFrame, parts: list[tuple]) -> pd.DataFrame:
    """Share of init and of data at every step, by `label`."""
    found = []
    for name, part, _ in parts:
        label, words = CLAIMS[name]
        for step, mine in rows[rows.cell == part["name"]].groupby("step"):
            mean = factorial.means(who_decides.runs_of(mine, label))
            found += [
                {"step": step, "part": each, "label": words, "share": 1 - mean[each] / mean["neither"]}
                for each in ("init", "data")
            ]
    return pd.DataFrame(found)


def _parts(verdicts) -> list[tuple]:
    """Of each verdict its ID, the part of the cell that answers, and what it says of content."""
    found = {verdict.id: verdict for verdict in verdicts if verdict.id in CLAIMS}
    return [
        (name, part, verdict.details["content"])
        for name, verdict in found.items()
        for part in verdict.parts
        if part["name"] == verdict.details["cell"]
    ]
