"""What became of every cell."""

import pandas as pd

from eval.judge.evidence import Evidence
from train.grid import DRAWN

# In the order of the page; `running` cannot be true while the page is written, since the writer holds the workdir.
WORDS = {
    "failed": "failed",
    "out_of_memory": "ran out of memory",
    "diverged": "diverged",
    "running": "begun, not finished",
    "pending": "pending",
    "partial": "partly evaluated",
    "tuned": "tuned, fresh seeds to come",
    "passed_over": "passed over for another logit scale",
    "done": "done",
}


def context(evidence: Evidence, verdicts) -> dict | None:
    """Every cell, those that are not done, and the runs that diverged."""
    if evidence.corpus is None:
        return None
    of_cells = states(evidence)
    unfinished = [each for each in of_cells if each["state"] not in ("done", "passed_over")]
    return {"states": of_cells, "unfinished": unfinished, "diverged": diverged(evidence)}


def states(evidence: Evidence) -> list[dict]:
    """Each cell of the config: name, state, words for it, reason; the worst first."""
    evaluated = {} if evidence.cells.empty else evidence.cells.set_index("cell").replicas.to_dict()
    order, rows = list(WORDS), []
    for cell in evidence.planned:
        folder, there = evidence.workdir.cell(cell.name), evaluated.get(cell.name, 0)
        state, reason = (folder.status()[name] for name in ("state", "reason"))
        drawn = [run for pack in folder.packs() for run in pack["replicas"] if run["start"] == DRAWN]
        runs = max(len(drawn), len(cell.replicas))
        if state == "done" and there < runs:
            state, reason = "partial", f"{there} of {runs} runs are in the tables"
        rows.append({"cell": cell.name, "state": state, "words": WORDS.get(state, state), "reason": reason})
    return sorted(rows, key=lambda each: order.index(each["state"]) if each["state"] in order else -1)


def diverged(evidence: Evidence) -> list[dict]:
    """Every run that diverged: cell, learning_rate, init_seed, data_seed, step, whether at its cell's chosen rate."""
    if evidence.cells.empty:
        return []
    runs = pd.concat([evidence.losses.choosing, evidence.losses.runs])
    columns = ["cell", "learning_rate", "init_seed", "data_seed", "diverged_at"]
    runs = runs[runs.status == "diverged"][columns].drop_duplicates()
    chosen = runs.cell.map(evidence.cells.set_index("cell").learning_rate)
    return runs.assign(chosen=runs.learning_rate == chosen).to_dict("records")
