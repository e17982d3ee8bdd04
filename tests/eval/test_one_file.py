"""A claim is one file and a section is one file: dropped where such files lie, they are judged and shown."""

import ast
import pathlib
import re

import hypothesis
import hypothesis.strategies as st
import pandas as pd
import pytest

import eval.measure
from eval import walk
from eval.judge import claims, verdicts
from eval.judge.claims.c3_price import decide
from eval.judge.evidence import Evidence
from eval.judge.intervals import Interval
from eval.judge.rules import REFUTED, SUPPORTED, UNDECIDED
from eval.report import page, sections
from eval.report.sections.measured import measurements
from tests.eval.workdirs import build
from train.config import freeze
from train.data import corpora
from train.workdir import read_json

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLAIM = """
from eval.judge.verdict import Shown, Verdict

ID = "C0"
STATEMENT = "Cells have names"
RULE = "supported: every cell has one; else refuted"


def applies(evidence):
    return "" if len(evidence.cells) else "There are no cells."


def cells_to_price(evidence):
    return ["a cell"]


def further(evidence):
    return [("a cell", 3)]


def look(evidence):
    return {"cells": len(evidence.cells)}


def judge(evidence):
    count = len(evidence.cells)
    row = {"label": "a", "effect": 0, "low": -1, "high": 1}
    shown = Shown("12 of 12", "names", ("A line beside.",), (row,), "names")
    return Verdict(ID, STATEMENT, "supported", f"All {count} have one.", RULE, 0.5, 0.95, shown=shown)
"""


@pytest.fixture
def evidence(tmp_path) -> Evidence:
    few = {"d_model": (16,), "num_heads": (1, 4), "learning_rates": (0.008,), "tuning_seeds": (7, 8)}
    workdir, table = build(tmp_path, **few)
    return Evidence(workdir, freeze(workdir.record()["config"]), corpora.open_corpus(workdir.data), table)


def lies_in(monkeypatch, package, folder: pathlib.Path) -> pathlib.Path:
    """`folder`, whose files are modules of `package` from now on."""
    folder.mkdir()
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    return folder


def test_a_new_claim_is_judged_and_shown(evidence, monkeypatch, tmp_path):
    (lies_in(monkeypatch, claims, tmp_path / "claims") / "c0_names.py").write_text(CLAIM)
    first, *others = written = verdicts.write(evidence)
    assert first.verdict == "supported" and [one.id for one in others] == ["C1", "C2", "C3"]
    saved = read_json(evidence.workdir.results / "claims.json")
    assert saved[0]["sentence"] == "All 2 have one." and all("shown" not in one for one in saved)
    assert read_json(evidence.workdir.looks)["C0"] == [{"cells": 2}]
    assert verdicts.cells_to_price(evidence)[0] == "a cell" and verdicts.further(evidence) == [("a cell", 3)]
    html = page.write(evidence, written).read_text()
    for words in ("C0 · Cells have names", "12 of 12", "All 2 have one.", "A line beside.", "C0: names"):
        assert words in html, words
    assert (evidence.workdir.report / "figures" / "forest_C0.svg").exists()


def test_a_claim_has_what_a_claim_must_have(evidence):
    found = walk.modules(claims)
    assert sorted(one.ID for one in found) == ["C1", "C2", "C3", "C4a", "C4b", "C5", "C6", "C7", "C8", "C9a", "C9b"]
    assert all(one.STATEMENT and one.RULE and callable(one.judge) for one in found)
    assert [one.ID for one in verdicts.applying(evidence)] == ["C1", "C2", "C3"]
    why = {one.ID: one.applies(evidence) for one in found}
    assert not any(why[name] for name in ("C1", "C2", "C3")) and why["C4a"] == why["C4b"] != ""


def test_no_id_of_a_claim_steers_anything_outside_its_file():
    files = [path for top in ("eval", "train", "mha") for path in (ROOT / top).rglob("*.py")]
    files = [path for path in [*files, ROOT / "main.py"] if ROOT / "eval" / "judge" / "claims" not in path.parents]
    assert len(files) > 50
    assert [str(path) for path in files if ids(path.read_text())] == []
    assert ids('if verdict.id == "C4a":\n    pass') == ["C4a"] and ids('"""C4a: a claim."""') == []


def ids(text: str) -> list[str]:
    """The strings of a source that are a claim's id and nothing else."""
    strings = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return [value for value in strings if isinstance(value, str) and re.fullmatch(r"C\d+[a-z]?", value)]


def test_a_new_section_is_on_the_page(evidence, monkeypatch, tmp_path):
    folder = lies_in(monkeypatch, sections, tmp_path / "sections")
    (folder / "colours.py").write_text(
        "from matplotlib.figure import Figure\n\nfrom eval.report.style import Drawn\n\nTABLES = ('colours',)\n\n\n"
        "def context(evidence, verdicts):\n    return {'said': 'Seven of them.'} if len(evidence.cells) else None\n\n\n"
        "def figures(evidence, verdicts):\n    return {'colours': Drawn(Figure(), 'All colours.')}\n"
    )
    (folder / "colours.html.j2").write_text("<h2>Colours</h2>\n<p>{{ said }}</p>\n{{ figures | gallery }}\n")
    pd.DataFrame({"cell": ["a"], "replica": ["b"]}).to_parquet(evidence.workdir.results / "colours.parquet")
    html = page.write(evidence, []).read_text()
    assert html.index("Size and cost") < html.index("Seven of them.") < html.index("What became of every cell")
    assert 'aria-label="All colours."' in html and (evidence.workdir.report / "figures" / "colours.svg").exists()
    assert "Other measurements" not in html, "the section shows its table"


def test_the_order_of_the_page_names_sections_that_there_are():
    names = [each.__name__.removeprefix("eval.report.sections.") for each in page.found()]
    assert [name for name in page.ORDER if name != "*"] == names
    for section in page.found():
        assert section.__doc__ and pathlib.Path(section.__file__).with_suffix(".html.j2").exists()


def test_a_measurement_without_a_section_has_a_line(evidence, monkeypatch, tmp_path):
    assert measurements.context(evidence, []) is None
    table = pd.DataFrame({"cell": ["a", "b", "c"], "replica": ["x", "x", "x"], "warmth": [1.0, 2.0, 3.0]})
    for name in ("warmth", "nameless", "titled"):
        table.to_parquet(evidence.workdir.results / f"{name}.parquet")
    folder = lies_in(monkeypatch, eval.measure, tmp_path / "measure")
    (folder / "warmth.py").write_text('"""How warm each head is.\n\nIn degrees.\n"""\n')
    (folder / "titled.py").write_text('"""Another line."""\n\nTITLE = "What it is called"\n')
    rows = measurements.context(evidence, [])["tables"]
    assert [(row["name"], row["rows"], row["title"]) for row in rows] == [
        ("nameless", 3, ""),
        ("titled", 3, "What it is called"),
        ("warmth", 3, "How warm each head is."),
    ]
    assert rows[0]["columns"] == ["cell", "replica", "warmth"]
    html = page.write(evidence, []).read_text()
    assert "Other measurements" in html and "How warm each head is." in html and "cell, replica, warmth" in html


ratios = st.tuples(st.floats(0.5, 2), st.floats(0, 0.5)).map(lambda at: Interval(at[0], at[0] - at[1], at[0] + at[1]))


@hypothesis.given(st.lists(ratios, min_size=2, max_size=2), st.booleans())
@hypothesis.settings(max_examples=500, deadline=None)
def test_the_regions_of_a_price_are_disjoint_and_cover_everything(both, equal):
    least, most = 1 / 1.1, 1.1
    outside = any(one.high < least or one.low > most for one in both)
    within = all(one.low >= least and one.high <= most for one in both)
    regions = {REFUTED: outside, SUPPORTED: within and equal}
    assert sum(regions.values()) <= 1
    regions[UNDECIDED] = not any(regions.values())
    assert regions[decide(both, (least, most), equal)]
