"""How the study was made, and the command that makes it again."""

import shlex

from eval.judge.evidence import Evidence


def context(evidence: Evidence, verdicts) -> dict:
    occurring = {}  # what else shaped the bits; where cells differ, every value that occurs
    for cell in evidence.planned:
        for pack in evidence.workdir.cell(cell.name).packs():
            for name, value in [*pack["environment"].items(), ("replica_map", pack["replica_map"])]:
                occurring.setdefault(name, set()).add(str(value) if value != "" else "none")
    settings = [(name.replace("_", " "), ", ".join(sorted(values))) for name, values in occurring.items()]
    return {"settings": settings, "command": command(evidence.workdir.record())}


def command(record: dict) -> str:
    """A command line that runs the same study in a new workdir, every field of its config spelt out."""
    words = ["python main.py --workdir=runs/again"]
    for section, fields in record["config"].items():
        for name, value in fields.items():
            text = ",".join(map(str, value)) or "()" if isinstance(value, list) else str(value)
            words.append(shlex.quote(f"--config.{section}.{name}={text}"))
    return " \\\n  ".join(words)
