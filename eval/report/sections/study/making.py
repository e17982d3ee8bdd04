"""How the study was made, and the command that makes it again."""

import shlex

from eval.judge.evidence import Evidence


def context(evidence: Evidence, verdicts) -> dict:
    record = evidence.record
    return {"corpus": evidence.corpus, "record": record, "settings": settings(evidence), "command": command(record)}


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
