"""C5: what a model answers to a role, and what a study says of it."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest

from eval.judge import rules
from eval.judge.claims import c5_specialisation
from eval.judge.claims.c5_specialisation import Best, answers, overall
from eval.judge.rule_m import NO, OPEN, YES
from eval.report import page
from tests.eval.heads.test_verdicts_of_heads import CELL, RATE, evidence_of
from train import grid

chances = st.floats(0, 1)


@hypothesis.given(st.dictionaries(st.text(max_size=3), st.tuples(chances, st.booleans(), chances), min_size=1))
def test_every_role_has_one_answer_and_yes_is_holms(roles):
    said = answers({name: Best(above, outdoes, most, 0.5) for name, (above, outdoes, most) in roles.items()})
    assert said.keys() == roles.keys() and {*said.values()} <= {YES, NO, OPEN}
    for name, (above, outdoes, most) in roles.items():
        if said[name] == YES:
            assert outdoes and above < 0.05
        elif above < 0.05 / len(roles) and outdoes:
            pytest.fail("a role that passes Bonferroni passes Holm")
        assert (said[name] == NO) <= (most < 0.5)


def test_a_head_that_does_not_outdo_the_untrained_ones_is_no_yes():
    assert answers({"a": Best(0.0, False, 0.9, 0.1)}) == {"a": OPEN}
    assert answers({"a": Best(0.0, False, 0.05, 0.1)}) == {"a": NO}
    assert answers({"a": Best(0.0, True, 0.9, 0.1)}) == {"a": YES}


@hypothesis.given(st.lists(st.sampled_from([rules.SUPPORTED, rules.REFUTED, rules.UNDECIDED, None])))
def test_the_claim_in_a_cell_is_decided_by_its_roles(verdicts):
    tested = [each for each in verdicts if each]
    wanted = rules.UNDECIDED
    if rules.SUPPORTED in tested:
        wanted = rules.SUPPORTED
    elif tested and all(each == rules.REFUTED for each in tested):
        wanted = rules.REFUTED
    assert overall(verdicts) == wanted


def rows(seed: int, role: str, effects, gain=1.0, queries=900, files=40.0, untrained=0.02) -> list[dict]:
    """Rows of one model whose heads of layer 0 have these effects, on tune and on test, and of the whole model."""
    name = grid.Replica(RATE, seed, seed).name
    about = {"cell": CELL, "replica": name, "learning_rate": RATE, "init_seed": seed, "data_seed": seed, "role": role}
    about |= {"text": "own", "positional": False, "offset": 1, "queries": queries, "files": files, "top": np.nan}
    made = []
    for split in ("tune", "test"):
        for head, effect in enumerate(effects):
            values = {"mass": effect, "reference": 0.0, "which": "elsewhere", "effect": effect, "error": 0.01}
            values |= {"low": effect - 0.02, "high": effect + 0.02, "above": float(effect < 0.12)}
            values |= {"least": effect - 0.03, "most": effect + 0.03, "called": effect > 0.13, "untrained": untrained}
            made.append(about | {"split": split, "layer": 0, "head": head, "rise": 0.5, "gain": 0.2} | values)
    whole = {"layer": -1, "head": -1, "rise": 1.0, "gain": gain, "others": 1.5, "called": False}
    made.append(about | {"split": "test"} | whole)
    return made


def judged(folder, made: list[dict], **changes):
    evidence = evidence_of(folder, {"roles": pd.DataFrame(made)}, **changes)
    return evidence, c5_specialisation.judge(evidence)


def test_a_role_that_every_model_has_is_supported_and_one_that_none_has_refuted(tmp_path):
    made = [row for seed in range(6) for row in (*rows(seed, "duplicate", [0.0, 0.6]), *rows(seed, "odd", [0.01, 0.0]))]
    evidence, verdict = judged(tmp_path, made)
    parts = {part["role"]: part for part in verdict.parts}
    assert parts["duplicate"]["verdict"] == "supported" and parts["duplicate"]["yes"] == 6
    assert parts["odd"]["verdict"] == "refuted" and parts["odd"]["no"] == 6
    assert verdict.verdict == "supported" and verdict.n == 6
    assert "have a head for duplicate" in verdict.sentence and "none for odd" in verdict.sentence
    text = page.write(evidence, [verdict]).read_text()
    assert "What heads attend to" in text and "0.1: duplicate" in text


def test_a_model_without_rows_is_open_and_stays_in_the_denominator(tmp_path):
    made = [row for seed in range(4) for row in rows(seed, "duplicate", [0.0, 0.6])]
    (part,) = judged(tmp_path, made)[1].parts
    assert (part["yes"], part["open"], part["seeds"], part["verdict"]) == (4, 2, 6, "undecided")


def test_induction_is_judged_in_models_that_learnt_it(tmp_path):
    made = [row for seed in range(6) for row in rows(seed, "induction", [0.0, 0.6], gain=1.0 if seed else 0.1)]
    (part,) = judged(tmp_path, made)[1].parts
    assert (part["yes"], part["seeds"], part["verdict"]) == (5, 5, "supported")
    made = [row for seed in range(6) for row in rows(seed, "induction", [0.0, 0.6], gain=1.0 if seed > 1 else 0.1)]
    (tmp_path / "fewer").mkdir()
    verdict = judged(tmp_path / "fewer", made)[1]
    assert verdict.parts[0]["verdict"] is None and "4 of 6 models learnt it" in verdict.notes[0]


@pytest.mark.parametrize(("few", "said"), [({"queries": 29}, "29 links"), ({"files": 19.0}, "19 effective files")])
def test_too_few_links_or_files_are_shown_and_not_judged(tmp_path, few, said):
    made = [row for seed in range(6) for row in rows(seed, "duplicate", [0.0, 0.6], **few)]
    evidence, verdict = judged(tmp_path, made)
    assert verdict.parts[0]["verdict"] is None and verdict.verdict == "undecided" and said in verdict.notes[0]
    assert "not judged: duplicate" in page.write(evidence, [verdict]).read_text()
