"""C1, C2 and C3 from a workdir's tables: what they say, and what they say when something is missing."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

from eval.judge import arms, intervals, rules, verdicts
from eval.judge.claims import c3_price
from eval.judge.evidence import Evidence
from eval.judge.paired import comparison, decision
from tests.eval.workdirs import build
from train.config import InputError, freeze
from train.data import corpora
from train.files import write_json
from train.workdir import Workdir

HEADS = {"d_model": (32,), "num_heads": (1, 4, 32), "learning_rates": (0.004, 0.008, 0.016)}
PROTOCOL = {**HEADS, "tuning_seeds": (7, 8), "init_seeds": (0, 1, 2, 3, 4, 5), "files": 40, "noise": 0.002}


def steep(model) -> float:
    """One head and heads of width 1 are worse by .2 than four heads."""
    return {1: 2.2, 4: 2.0, 32: 2.2}[model.num_heads]


def flat(model) -> float:
    return 2.0


def judged(folder, beside=(), **changes) -> tuple[dict, Workdir]:
    """Verdicts by id of a made-up study."""
    workdir, table = build(folder, **{**PROTOCOL, **changes})
    return judge_again(workdir, table, beside), workdir


def evidence(workdir, table, beside=()) -> Evidence:
    config = freeze(workdir.record()["config"])
    return Evidence(workdir, config, corpora.open_corpus(workdir.data), table, arms=beside)


def judge_again(workdir, table, beside=()):
    found = verdicts.write(evidence(workdir, table, beside))
    saved = json.loads((workdir.results / "claims.json").read_text())
    assert [one["id"] for one in saved] == ["C1", "C2", "C3"] == [one.id for one in found]
    assert all(one["sentence"] and one["rule"] for one in saved)
    return {one.id: one for one in found}


def test_a_planted_difference_is_found(tmp_path):
    found, workdir = judged(tmp_path, curve=steep)
    for name in ("C1", "C2"):
        assert found[name].verdict == "supported" and found[name].effect == pytest.approx(0.2, abs=0.01)
        assert found[name].n == 6 and found[name].about == "new documents" and not found[name].missing
    assert found["C1"].parts[0]["cells"] == ["d032_h001", "d032_h004"]
    assert found["C2"].parts[0]["cells"] == ["d032_h032", "d032_h004"]
    assert "several heads learn faster than one" in found["C1"].sentence and "text.txt" in found["C1"].sentence
    assert found["C1"].details["sign"] == {"agree": 6, "of": 6, "p_value": pytest.approx(2 / 64)}
    assert found["C1"].details["fixed_heads"]["verdict"] == "supported"
    shared = found["C1"].details["shared_rate"]
    assert shared["rate"] == 0.008 and shared["n"] == 2, "the tuning seeds alone"
    assert found["C1"].details["correlation"] > 0.9
    assert "Whether it is the width" in " ".join(found["C2"].notes)
    assert "the loss at d_k = 1 exceeds that at h*: after" in found["C2"].sentence
    assert all("; 0 of 12 runs diverged" in found[name].sentence for name in ("C1", "C2"))
    assert found["C2"].details["may_be_best"] == {"d_model 32": {"cells": ["d032_h004"], "seeds": 6}}


def test_where_there_is_no_difference_none_is_found(tmp_path):
    found, _ = judged(tmp_path, curve=flat, files=1)
    assert found["C1"].verdict in ("refuted", "undecided") and abs(found["C1"].effect) < 0.01
    assert found["C1"].details["equivalent"] and "No difference that matters" in found["C1"].notes[0]
    assert found["C1"].about == "these documents" and "weigh as 1.0" in " ".join(found["C1"].notes)


def test_a_supported_difference_matters(tmp_path):
    """The 90 % interval may lie within the margin and the 95 % interval reach it: then only `supported` is said."""
    curve = lambda model: 2.0 + 0.02 * (model.num_heads == 1)  # noqa: E731
    found, workdir = judged(tmp_path, curve=curve, files=1)
    table, claims_ = pd.read_parquet(workdir.results / "cells.parquet"), workdir.record()["config"]["claims"]
    values = list(found["C1"].details["values"].values())
    margin = (found["C1"].high + intervals.over_seeds(np.array(values), 0.9).high) / 2
    record = workdir.record()
    record["config"]["claims"] = {**claims_, "margin": margin}
    write_json(workdir.path / "config.json", record)
    again = judge_again(workdir, table)["C1"]
    assert again.verdict == "supported" and again.details["equivalent"]
    assert "No difference that matters" not in " ".join(again.notes)


def test_a_d_model_without_its_counterpart_is_named(tmp_path):
    workdir, table = build(tmp_path, **{**PROTOCOL, "d_model": (16, 32), "num_heads": (1, 4, 16)}, curve=flat)
    found = judge_again(workdir, table)
    assert not [note for note in found["C1"].notes if note.startswith("Left out")]
    assert "Left out, having nothing to compare: d_model 32 has no cell with d_k = 1." in found["C2"].notes
    assert [part["name"] for part in found["C2"].parts] == ["d_model 16"]


def test_crossed_seeds_are_not_judged(tmp_path):
    """2 inits x 3 data orders are no 6 independent seeds."""
    seeds = {"seeds": "crossed", "init_seeds": (0, 1), "data_seeds": (2, 3, 4)}
    found, workdir = judged(tmp_path, curve=steep, **seeds)
    for name in ("C1", "C2"):
        assert found[name].verdict == "undecided" and found[name].effect is None and found[name].n == 0
        assert "for claim C9" in found[name].sentence
    assert "for claim C9" in decision.prospect(freeze(workdir.record()["config"]))
    assert not workdir.looks.exists()


def test_only_tune_documents_and_tuning_seeds_choose_h(tmp_path):
    """h = 32 is best on `test`, h = 4 on `tune`: h* is 4."""
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    table = table.assign(test_loss=[1.0 if heads == 32 else 3.0 for heads in table.num_heads])
    assert judge_again(workdir, table)["C1"].parts[0]["num_heads"] == [1, 4]


def test_a_wide_interval_asks_for_seeds(tmp_path):
    found, _ = judged(tmp_path, curve=flat, noise=0.05, files=1)
    low, high = found["C1"].details["seeds_to_decide"]
    assert found["C1"].verdict == "undecided" and 6 < low < high
    assert f"To decide: {low:,} to {high:,} seeds" in found["C1"].sentence


def test_documents_may_be_what_is_short(tmp_path):
    found, _ = judged(tmp_path, curve=flat, noise=0.0002, claims={"margin": 0.0005})
    assert found["C1"].details["seeds_to_decide"] is None
    assert "more files" in found["C1"].sentence


@pytest.mark.parametrize(
    "changes, claim, words",
    [
        ({"num_heads": (4, 32)}, "C1", "no cell with h = 1"),
        ({"num_heads": (1,)}, "C1", "no cell with more than one head"),
        ({"num_heads": (1, 4)}, "C2", "no cell with d_k = 1"),
        ({"tuning_seeds": ()}, "C1", "grid.tuning_seeds is empty"),
        ({"init_seeds": (0,)}, "C1", "One fresh seed gives no interval; two are the least"),
        ({"only": ("d032_h001", "d032_h004")}, "C1", "d032_h032 has no result (pending)"),
    ],
)
def test_what_is_missing_is_named(changes, claim, words, tmp_path):
    found, _ = judged(tmp_path, curve=steep, **changes)
    assert found[claim].verdict == "undecided" and words in found[claim].sentence
    assert found[claim].low is None and found[claim].effect is None and not found[claim].parts, "no look at half of it"


def test_seeds_that_are_missing_are_named(tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    record = json.loads((workdir.path / "config.json").read_text())
    record["config"]["grid"]["init_seeds"] = [0, 1, 2, 3, 4, 5, 6]
    write_json(workdir.path / "config.json", record)
    found = judge_again(workdir, table)["C1"]
    assert found.verdict == "undecided" and "d032_h004 lacks 1 of 7 fresh seeds" in found.sentence
    assert not workdir.looks.exists(), "nothing was read yet"


def test_unequal_tuning_is_refused(tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    found = judge_again(workdir, table.assign(rates=[3, 3, 4]))["C1"]
    assert found.verdict == "undecided" and "not tuned alike" in found.sentence


def test_a_diverging_cell_is_reported_and_not_dropped(tmp_path):
    lost = tuple(("d032_h001", None, seed) for seed in (0, 1))
    found, _ = judged(tmp_path, curve=flat, lost=lost)
    said = " ".join(found["C1"].notes)
    assert found["C1"].n == 6 and "d032_h001 2 of 6" in said and "survivors alone (n = 4)" in said
    assert found["C1"].effect > 0.3 and abs(found["C1"].details["survivors"]["effect"]) < 0.05


def test_a_cell_whose_every_run_diverged(tmp_path):
    found, _ = judged(tmp_path, curve=flat, lost=(("d032_h001", None, None),))
    assert "d032_h001 6 of 6" in " ".join(found["C1"].notes)
    assert found["C1"].details["survivors"] == {"n": 0, "verdict": "undecided"}
    assert "6 of 12 runs diverged, every one of d032_h001." in found["C1"].sentence


def test_where_every_run_of_both_sides_diverged_nothing_is_decided(tmp_path):
    found, _ = judged(tmp_path, curve=flat, lost=((None, None, None),))
    assert found["C1"].verdict == found["C2"].verdict == "undecided"
    assert "Every run of d032_h001 and of " in found["C1"].sentence


def test_a_diverged_run_does_not_blur_the_best_set(tmp_path):
    lost = (("d032_h001", None, 0), ("d032_h032", None, None))
    found, _ = judged(tmp_path, curve=steep, lost=lost)
    assert found["C2"].details["may_be_best"] == {"d_model 32": {"cells": ["d032_h004"], "seeds": 5}}


def test_seeds_added_after_a_look_make_it_exploratory(tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    assert not judge_again(workdir, table)["C1"].exploratory
    assert not judge_again(workdir, table)["C1"].exploratory, "the same seeds are the same look"
    read = json.loads(workdir.looks.read_text())
    write_json(workdir.looks, {name: [{**look, "seeds": [[0, 0]]}, look] for name, (look,) in read.items()})
    again = judge_again(workdir, table)["C1"]
    assert again.exploratory and again.sentence.startswith("Exploratory")


@pytest.mark.parametrize("change", ["cell", "rate"])
def test_another_choice_after_a_look_makes_it_exploratory(change, tmp_path):
    """... on the same seeds, and for the claim alone whose choice it is."""
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    first = judge_again(workdir, table)
    assert not first["C1"].exploratory and not first["C2"].exploratory
    if change == "cell":
        table = table.assign(tune_loss=[3.0, 2.0, 1.0])  # h* of C1 is 32 now, and of C2 still 4
    else:
        read = json.loads(workdir.looks.read_text())
        read["C1"][0]["chosen"][0][1] = 0.004
        write_json(workdir.looks, read)
    again = judge_again(workdir, table)
    assert again["C1"].exploratory and not again["C2"].exploratory
    assert judge_again(workdir, table)["C1"].exploratory, "a look is not forgotten"


def test_looks_widen_the_interval(tmp_path):
    one, _ = judged(tmp_path / "a", curve=steep) if (tmp_path / "a").mkdir() is None else None
    (tmp_path / "b").mkdir()
    two, _ = judged(tmp_path / "b", curve=steep, claims={"looks": 2})
    assert two["C1"].confidence == 0.975 and two["C1"].low < one["C1"].low and two["C1"].high > one["C1"].high


def arm(workdir, verdict: str, ratio: float, kind: str, **changes) -> arms.Arm:
    found = {"verdict": verdict, "low": 0.1, "sentence": "A sentence.", "exploratory": False, "missing": [], **changes}
    fingerprint = workdir.record()["data_fingerprint"]
    return arms.Arm("runs/arm", {}, "train.steps: 1 -> 4", kind, ratio, {"C1": found, "C2": found}, fingerprint)


def test_arms_say_how_far_a_verdict_reaches(tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    longer = arm(workdir, "supported", 4.0, "tokens")
    found = judge_again(workdir, table, [longer])["C1"]
    assert "several heads beat one" in found.sentence
    assert "Arm runs/arm (train.steps: 1 -> 4): supported. A sentence." in found.notes
    for short in (arm(workdir, "supported", 2.0, "tokens"), arm(workdir, "undecided", 4.0, "tokens")):
        assert "learn faster" in judge_again(workdir, table, [short])["C1"].sentence
    both = [arm(workdir, "supported", 1, "d_k"), arm(workdir, "supported", 1, "scaling")]
    assert "It is the width" in " ".join(judge_again(workdir, table, both)["C2"].notes)
    assert "It is the width" not in " ".join(judge_again(workdir, table, both[:1])["C2"].notes)


def test_it_is_the_width_only_where_there_is_something_to_explain(tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=flat)
    both = [arm(workdir, "supported", 1, "d_k"), arm(workdir, "supported", 1, "scaling")]
    found = judge_again(workdir, table, both)["C2"]
    assert found.verdict != "supported" and "the width" not in " ".join(found.notes)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"exploratory": True}, "its verdict is exploratory."),
        ({"missing": ["d032_h001 lacks 1 of 7 fresh seeds."]}, "incomplete: d032_h001 lacks 1 of 7 fresh seeds."),
        ({"fingerprint": "0123456789abcdef"}, "its data, 0123456789ab, are not this study's."),
        ({"verdicts": {}}, "it holds no verdict on C1."),
    ],
)
def test_an_arm_that_cannot_speak_is_passed_over(changes, reason, tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    fields = {name: changes.pop(name) for name in ("fingerprint", "verdicts") if name in changes}
    longer = dataclasses.replace(arm(workdir, "supported", 4.0, "tokens", **changes), **fields)
    found = judge_again(workdir, table, [longer])["C1"]
    assert "learn faster" in found.sentence
    assert [note for note in found.notes if "passed over" in note and note.endswith(reason)]


def test_arms_are_read_from_workdirs(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    _, base = judged(tmp_path / "a", curve=steep)
    _, other = judged(tmp_path / "b", curve=steep)
    record = json.loads((other.path / "config.json").read_text())
    record["config"]["data"]["source"] = base.record()["config"]["data"]["source"]
    write_json(other.path / "config.json", record)
    with pytest.raises(InputError, match="differs from this one in nothing"):
        arms.load([str(other.path)], base.record()["config"])
    record["config"]["claims"]["margin"] = 0.02
    write_json(other.path / "config.json", record)
    with pytest.raises(InputError, match="claims.margin=0.02 where this study has 0.01"):
        arms.load([str(other.path)], base.record()["config"])
    record["config"]["claims"]["margin"], record["config"]["data"]["max_bytes"] = 0.01, 1000
    write_json(other.path / "config.json", record)
    with pytest.raises(InputError, match="other data: data.max_bytes: 3000000 -> 1000"):
        arms.load([str(other.path)], base.record()["config"])
    record["config"]["data"]["max_bytes"] = base.record()["config"]["data"]["max_bytes"]
    record["config"]["train"]["steps"] *= 4
    write_json(other.path / "config.json", record)
    (found,) = arms.load([str(other.path)], base.record()["config"])
    assert found.fingerprint == other.record()["data_fingerprint"]
    assert found.kind == "tokens" and found.ratio == 4 and found.verdicts["C1"]["verdict"] == "supported"
    with pytest.raises(InputError, match="holds no verdicts"):
        arms.load([str(tmp_path)], base.record()["config"])


def test_d_k_can_vary_at_one_number_of_heads(tmp_path):
    curve = lambda model: 2.0 + 0.2 * (model.d_k == 1)  # noqa: E731
    found, _ = judged(tmp_path, curve=curve, num_heads=(4,), d_k=(1, 4, 8))
    assert found["C2"].verdict == "supported" and found["C2"].parts[0]["name"] == "d_model 32, h = 4"
    assert found["C1"].verdict == "undecided"


def test_depth_against_heads(tmp_path):
    """Four layers of one head are .1 worse than one layer of several."""
    curve = lambda model: 2.0 + 0.1 * (model.num_layers == 4 and model.num_heads == 1)  # noqa: E731
    found, _ = judged(tmp_path, curve=curve, num_heads=(1, 4), num_layers=(1, 4))
    depth = found["C1"].details["depth"]["d_model 32"]
    assert depth["cells"][0] == "d032_h001_L04" and depth["cells"][1] == "d032_h004_L01"
    assert depth["effect"] == pytest.approx(0.1, abs=0.01) and depth["verdict"] == "supported"
    assert [part["name"] for part in found["C1"].parts] == ["d_model 32, 1 layer", "d_model 32, 4 layers"]
    assert judged(tmp_path, curve=curve)[0]["C1"].details["depth"] == {}


def launches(workdir, slower: float, more: float = 1.0, count: int = 4, spread: float = 0.01):
    for launch in range(count):
        rows = [
            {
                "launch": launch,
                "cell": name,
                "path": path,
                "attention": path,
                "step_ms": 10 * (1 + 0.3 * launch) * (slower * math.exp(spread * (launch - 1.5)) if heads > 1 else 1),
                "memory_bytes": round(1e6 * (more if heads > 1 else 1)),
            }
            for name, heads in (("d032_h001", 1), ("d032_h004", 4))
            for path in ("auto", "reference")
        ]
        write_json(workdir.price(launch), {"rows": rows, "device": "cpu"})


@pytest.mark.parametrize(
    "slower, more, verdict",
    [(1.0, 1.0, "supported"), (1.5, 1.0, "refuted"), (1.0, 1.5, "refuted"), (1.095, 1.0, "undecided")],
)
def test_the_price(slower, more, verdict, tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    launches(workdir, slower, more)
    found = judge_again(workdir, table)["C3"]
    assert found.verdict == verdict and found.n == 4
    assert found.effect == pytest.approx(slower, rel=1e-6) and found.parts[0]["memory_bytes"] == pytest.approx(more)
    assert "4 times the exps" in " ".join(found.notes)
    assert (
        found.sentence.startswith("On file:") and "text.txt, at the same size, h* (4 at d_model 32)" in found.sentence
    )
    assert "Attention parameters are equal, non-embedding parameters are equal" in found.sentence
    assert "of the judged runs, 0 of 12 runs diverged." in found.sentence and len(found.parts) == 2


def test_the_price_of_each_d_model(tmp_path):
    """... beside that of all: one twice as dear, one half as dear."""
    workdir, table = build(tmp_path, **{**PROTOCOL, "d_model": (16, 32), "num_heads": (1, 4, 16)}, curve=flat)
    pairs = comparison.HEADS.pairs(evidence(workdir, table).losses.cells)
    for launch in range(4):
        rows = [
            {"launch": launch, "cell": cell, "path": path, "attention": path, "step_ms": time, "memory_bytes": 1e6}
            for factor, pair in zip((2.0, 0.5), pairs.values(), strict=True)
            for cell, time in zip(pair, (10 + launch, factor * (10 + launch)), strict=True)
            for path in c3_price.PATHS
        ]
        write_json(workdir.price(launch), {"rows": rows, "device": "cpu"})
    found = judge_again(workdir, table)["C3"]
    parts = {part["name"]: (round(part["step_ms"], 6), part["verdict"]) for part in found.parts}
    assert parts == {
        **{words: (1.0, "supported") for words in c3_price.PATHS.values()},
        **{f"{words}, d_model 16": (2.0, "refuted") for words in c3_price.PATHS.values()},
        **{f"{words}, d_model 32": (0.5, "refuted") for words in c3_price.PATHS.values()},
    }


@pytest.mark.parametrize("factor, verdict", [(1.0005, "supported"), (1.02, "undecided")])
def test_the_price_asks_for_all_parameters(factor, verdict, tmp_path):
    """At equal FLOPs attention parameters may agree and the feed-forward ones differ."""
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    launches(workdir, 1.0)
    sizes = table.params_non_embedding.where(table.num_heads == 1, factor * table.params_non_embedding)
    found = judge_again(workdir, table.assign(params_non_embedding=sizes))["C3"]
    assert found.verdict == verdict and f"differ by up to {factor - 1:.3%}" in found.sentence
    assert ("at sizes that differ" in found.sentence) == (verdict == "undecided")


def test_no_price_without_launches(tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    assert "have not been measured" in judge_again(workdir, table)["C3"].sentence
    launches(workdir, 1.0, count=1)
    assert "One launch gives no interval" in judge_again(workdir, table)["C3"].sentence


def test_what_is_timed_is_what_c1_compares(tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    assert verdicts.cells_to_price(evidence(workdir, table)) == ("d032_h001", "d032_h004")
    assert c3_price.PATHS.keys() == {"auto", "reference"}


def test_before_training_the_study_says_what_its_seeds_can_decide(tmp_path):
    def said(**changes):
        workdir, _ = build(tmp_path, **{**PROTOCOL, **changes})
        return decision.prospect(freeze(workdir.record()["config"]))

    assert "6 fresh seeds" in said() and "0.0072" in said()
    assert "about the same test documents" in said() and "from 0.0034 on it alone puts it out of reach" in said()
    assert "two seeds are the least" in said(init_seeds=(0,))
    assert "without grid.tuning_seeds" in said(tuning_seeds=())
    assert rules.UNDECIDED == "undecided"
