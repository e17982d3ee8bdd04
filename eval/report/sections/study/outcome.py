"""What became of every cell."""

import pandas as pd

from eval.judge.evidence import Evidence

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
    if evidence.corpus is None:
        return None
    return {"states": states(evidence), "diverged": diverged(evidence)}


def states(evidence: Evidence) -> list[dict]:
    """Each cell of the config: name, state, words for it, reason; the worst first."""
    evaluated = {} if evidence.cells.empty else evidence.cells.set_index("cell").replicas.to_dict()
    found = []
    for cell in evidence.planned:
        status = evidence.workdir.cell(cell.name).status()
        state, reason = status["state"], status["reason"]
        trained = sum(len(pack["replicas"]) for pack in evidence.workdir.cell(cell.name).packs())
        if state == "done" and evaluated.get(cell.name, 0) < max(trained, len(cell.replicas)):
            state = "partial"
            reason = f"{evaluated.get(cell.name, 0)} of {max(trained, len(cell.replicas))} runs are in the tables"
        found.append({"cell": cell.name, "state": state, "words": WORDS.get(state, state), "reason": reason})
    order = list(WORDS)
    return sorted(found, key=lambda each: order.index(each["state"]) if each["state"] in order else -1)


def diverged(evidence: Evidence) -> list[dict]:
    """Every run that diverged: cell, learning_rate, init_seed, data_seed, step, whether at its cell's chosen rate."""
    if evidence.cells.empty:
        return []
    runs = pd.concat([evidence.losses.choosing, evidence.losses.runs])
    columns = ["cell", "learning_rate", "init_seed", "data_seed", "diverged_at"]
    runs = runs[runs.status == "diverged"].drop_duplicates(columns)
    chosen = dict(zip(evidence.cells.cell, evidence.cells.learning_rate, strict=True))
    return [{**run, "chosen": run["learning_rate"] == chosen[run["cell"]]} for run in runs[columns].to_dict("records")]
