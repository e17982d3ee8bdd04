"""C1, C2 and C3 from a workdir's tables: what they say, and what they say when something is missing."""

import json
import math

import pytest

from eval import arms, claims, price, rules, verdicts
from tests.eval.workdirs import build
from train import data
from train.config import InputError, freeze
from train.workdir import Workdir, write_json

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


def judge_again(workdir, table, beside=()):
    config = freeze(workdir.record()["config"])
    found = verdicts.write(workdir, table, config, data.open_corpus(workdir.data), list(beside))
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
    assert found["C1"].details["shared_rate"]["rate"] == 0.008
    assert found["C1"].details["correlation"] > 0.9
    assert "Whether it is the width" in " ".join(found["C2"].notes)


def test_where_there_is_no_difference_none_is_found(tmp_path):
    found, _ = judged(tmp_path, curve=flat, files=1)
    assert found["C1"].verdict in ("refuted", "undecided") and abs(found["C1"].effect) < 0.01
    assert found["C1"].details["equivalent"] and "No difference that matters" in found["C1"].notes[0]
    assert found["C1"].about == "these documents" and "weigh as 1.0" in " ".join(found["C1"].notes)


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


def test_seeds_added_after_a_look_make_it_exploratory(tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    assert not judge_again(workdir, table)["C1"].exploratory
    assert not judge_again(workdir, table)["C1"].exploratory, "the same seeds are the same look"
    write_json(workdir.looks, [[[0, 0]], *json.loads(workdir.looks.read_text())])
    again = judge_again(workdir, table)["C1"]
    assert again.exploratory and again.sentence.startswith("Exploratory")


def test_looks_widen_the_interval(tmp_path):
    one, _ = judged(tmp_path / "a", curve=steep) if (tmp_path / "a").mkdir() is None else None
    (tmp_path / "b").mkdir()
    two, _ = judged(tmp_path / "b", curve=steep, claims={"looks": 2})
    assert two["C1"].confidence == 0.975 and two["C1"].low < one["C1"].low and two["C1"].high > one["C1"].high


def arm(kind_of_change: dict, verdict: str, ratio: float, kind: str, low: float = 0.1) -> arms.Arm:
    found = {"verdict": verdict, "low": low, "sentence": "A sentence."}
    return arms.Arm("runs/arm", kind, str(kind_of_change), ratio, {"C1": found, "C2": found})


def test_arms_say_how_far_a_verdict_reaches(tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    longer = arm({}, "supported", 4.0, "tokens")
    assert "several heads beat one" in judge_again(workdir, table, [longer])["C1"].sentence
    for short in (arm({}, "supported", 2.0, "tokens"), arm({}, "undecided", 4.0, "tokens")):
        assert "learn faster" in judge_again(workdir, table, [short])["C1"].sentence
    both = [arm({}, "supported", 1, "d_k"), arm({}, "supported", 1, "scaling")]
    assert "It is the width" in " ".join(judge_again(workdir, table, both)["C2"].notes)
    assert "It is the width" not in " ".join(judge_again(workdir, table, both[:1])["C2"].notes)


def test_arms_are_read_from_workdirs(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    _, base = judged(tmp_path / "a", curve=steep)
    _, other = judged(tmp_path / "b", curve=steep)
    record = json.loads((other.path / "config.json").read_text())
    record["config"]["data"]["source"] = base.record()["config"]["data"]["source"]
    write_json(other.path / "config.json", record)
    with pytest.raises(InputError, match="differs from this one in nothing"):
        arms.load([str(other.path)], base.record()["config"])
    record["config"]["train"]["steps"] *= 4
    write_json(other.path / "config.json", record)
    (found,) = arms.load([str(other.path)], base.record()["config"])
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
    assert [part["name"] for part in found["C1"].parts] == ["d_model 32, 1 layers", "d_model 32, 4 layers"]
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


def test_no_price_without_launches(tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    assert "have not been measured" in judge_again(workdir, table)["C3"].sentence
    launches(workdir, 1.0, count=1)
    assert "One launch gives no interval" in judge_again(workdir, table)["C3"].sentence


def test_what_is_timed_is_what_c1_compares(tmp_path):
    workdir, table = build(tmp_path, **PROTOCOL, curve=steep)
    assert verdicts.cells_to_price(workdir, table, data.open_corpus(workdir.data)) == ("d032_h001", "d032_h004")
    assert price.PATHS.keys() == {"auto", "reference"}


def test_before_training_the_study_says_what_its_seeds_can_decide(tmp_path):
    def said(**changes):
        workdir, _ = build(tmp_path, **{**PROTOCOL, **changes})
        return claims.prospect(freeze(workdir.record()["config"]))

    assert "6 fresh seeds" in said() and "0.0072" in said()
    assert "two seeds are the least" in said(init_seeds=(0,))
    assert "without grid.tuning_seeds" in said(tuning_seeds=())
    assert rules.UNDECIDED == "undecided"
