"""What became of every cell, and how the study was made, for the foot of the page."""

import shlex

import numpy as np
import pandas as pd

from eval.report.facts import Facts

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


def states(facts: Facts) -> list[dict]:
    """Each cell of the config: name, state, words for it, reason; the worst first."""
    evaluated = {} if facts.cells.empty else facts.cells.set_index("cell").replicas.to_dict()
    found = []
    for cell in facts.planned:
        status = facts.workdir.cell(cell.name).status()
        state, reason = status["state"], status["reason"]
        trained = sum(len(pack["replicas"]) for pack in facts.workdir.cell(cell.name).packs())
        if state == "done" and evaluated.get(cell.name, 0) < max(trained, len(cell.replicas)):
            state = "partial"
            reason = f"{evaluated.get(cell.name, 0)} of {max(trained, len(cell.replicas))} runs are in the tables"
        found.append({"cell": cell.name, "state": state, "words": WORDS.get(state, state), "reason": reason})
    order = list(WORDS)
    return sorted(found, key=lambda each: order.index(each["state"]) if each["state"] in order else -1)


def diverged(facts: Facts) -> list[dict]:
    """Every run that diverged: cell, learning_rate, init_seed, data_seed, step, whether at its cell's chosen rate."""
    if facts.evidence is None:
        return []
    runs = pd.concat([facts.evidence.choosing, facts.evidence.runs])
    columns = ["cell", "learning_rate", "init_seed", "data_seed", "diverged_at"]
    runs = runs[runs.status == "diverged"].drop_duplicates(columns)
    chosen = dict(zip(facts.cells.cell, facts.cells.learning_rate, strict=True))
    return [{**run, "chosen": run["learning_rate"] == chosen[run["cell"]]} for run in runs[columns].to_dict("records")]


def splits(facts: Facts) -> list[dict]:
    """Documents and bytes of each split."""
    num_bytes = facts.corpus.num_bytes
    return [
        {"split": split, "documents": last - first, "bytes": int(np.sum(num_bytes[first:last]))}
        for split, (first, last) in facts.corpus.splits.items()
    ]


def settings(facts: Facts) -> list[tuple[str, str]]:
    """What else shaped the bits, by name; where cells differ, every value that occurs."""
    found = {}
    for cell in facts.planned:
        for pack in facts.workdir.cell(cell.name).packs():
            for name, value in [*pack["environment"].items(), ("replica_map", pack["replica_map"])]:
                found.setdefault(name, set()).add(str(value) if value != "" else "none")
    return [(name.replace("_", " "), ", ".join(sorted(values))) for name, values in found.items()]


def command(record: dict) -> str:
    """A command line that runs the same study in a new workdir, every field of its config spelt out."""
    words = ["python main.py --workdir=runs/again"]
    for section, fields in record["config"].items():
        for name, value in fields.items():
            text = ",".join(map(str, value)) or "()" if isinstance(value, list) else str(value)
            words.append(shlex.quote(f"--config.{section}.{name}={text}"))
    return " \\\n  ".join(words)
