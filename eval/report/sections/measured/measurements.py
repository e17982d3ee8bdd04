"""A line for every table in results/ that no section shows, so that a new measurement is on the page at once."""

import importlib
import importlib.util

import pandas as pd

from eval import walk
from eval.judge.evidence import Evidence
from eval.report import sections


def context(evidence: Evidence, verdicts) -> dict | None:
    shown = {name for section in walk.modules(sections) for name in getattr(section, "TABLES", ())}
    paths = sorted(path for path in evidence.workdir.results.glob("*.parquet") if path.stem not in shown)
    tables = [(path.stem, pd.read_parquet(path)) for path in paths]
    rows = [{"name": name, "rows": len(table), "columns": list(table), "title": title(name)} for name, table in tables]
    return {"tables": rows} if rows else None


def title(name: str) -> str:
    """What the measurement of this name is: TITLE of its file in eval/measure, or the first line that it begins with;
    '' without one."""
    if importlib.util.find_spec(f"eval.measure.{name}") is None:
        return ""
    module = importlib.import_module(f"eval.measure.{name}")
    return getattr(module, "TITLE", (module.__doc__ or "").strip().partition("\n")[0])
