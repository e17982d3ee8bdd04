"""How the study was made, and the command that makes it again."""

import shlex

import numpy as np

from eval.judge.evidence import Evidence


def context(evidence: Evidence, verdicts) -> dict:
    return {
        "corpus": evidence.corpus,
        "splits": splits(evidence) if evidence.corpus else [],
        "record": evidence.record,
        "config": evidence.record["config"],
        "settings": settings(evidence),
        "command": command(evidence.record),
    }


def splits(evidence: Evidence) -> list[dict]:
    """Documents and bytes of each split."""
    num_bytes = evidence.corpus.num_bytes
    return [
        {"split": split, "documents": last - first, "bytes": int(np.sum(num_bytes[first:last]))}
        for split, (first, last) in evidence.corpus.splits.items()
    ]


def settings(evidence: Evidence) -> list[tuple[str, str]]:
    """What else shaped the bits, by name; where cells differ, every value that occurs."""
    found = {}
    for cell in evidence.planned:
        for pack in evidence.workdir.cell(cell.name).packs():
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
