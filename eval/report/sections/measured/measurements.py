"""A line for every table in results/ that no section shows, so that a new measurement is on the page at once."""

import pandas as pd

from eval import measurements, walk
from eval.judge.evidence import Evidence
from eval.report import sections


def context(evidence: Evidence, verdicts) -> dict | None:
    shown = {name for section in walk.modules(sections) for name in getattr(section, "TABLES", ())}
    tables = {path.stem: pd.read_parquet(path) for path in sorted(evidence.workdir.results.glob("*.parquet"))}
    titles = {measurements.table_of(name): measurements.title_of(name) for name in measurements.known()}
    rows = [
        {"name": name, "rows": len(table), "columns": list(table), "title": titles.get(name, "")}
        for name, table in tables.items()
        if name not in shown
    ]
    return {"tables": rows} if rows else None
