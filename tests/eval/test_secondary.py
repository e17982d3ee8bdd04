"""C4 beside its primary cell: exponents that were put in come out, and Holm takes the number of cells into account."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from configs import relations
from eval import doses
from eval.judge import arms, steps
from eval.judge.arms import Arm
from eval.judge.claims import c4a_slower
from main import main
from tests.eval.workdirs import dose_workdir
from train.config import InputError, freeze
from train.files import write_table
from train.workdir import Workdir, read_json


def runs(taken_by, heads=(1, 8), doses=(1, 6), layers=1, cap=10_000):
    rows = []
    for h in heads:
        for r in doses:
            for seed in range(6):
                taken = taken_by(h, r, seed)
                reached = taken < cap
                rows.append(
                    {
                        "num_heads": h,
                        "num_layers": layers,
                        "relations": r,
                        "stage": "fresh",
                        "seed": seed,
                        "learning_rate": 0.003,
                        "steps": min(taken, cap),
                        "outcome": "reached" if reached else "capped",
                        "loss": 0.04 if reached else 0.5,
                        "worst": 0.7,
                    }
                )
    return pd.DataFrame(rows)


def test_exponents_that_were_put_in():
    draw = np.random.default_rng(0)
    noise = {key: draw.normal(0, 0.05) for key in np.ndindex(9, 7, 6)}
    taken = lambda h, r, seed: 900 * r**0.8 * h**-0.8 * np.exp(noise[h, r, seed])  # noqa: E731
    found = steps.slopes([runs(taken, (1, 2, 8), (1, 2, 4, 6))], 0.95)
    assert found["relations"].low < 0.8 < found["relations"].high and found["relations"].low > 0.7
    assert found["heads_layers"].low < -0.8 < found["heads_layers"].high
    assert found["sum"].low < 0 < found["sum"].high
    alone = steps.slopes([runs(lambda h, r, seed: taken(1, r, seed), (1, 2, 8), (1, 2, 4, 6))], 0.95)
    assert alone["heads_layers"].mean == pytest.approx(0, abs=1e-9) and alone["sum"].low > 0.7


def test_layers_count_as_heads_do():
    one = runs(lambda h, r, seed: 1000 * r / h, (1, 2), (1, 2))
    two = runs(lambda h, r, seed: 1000 * r / (2 * h), (1, 2), (1, 2), layers=2)
    found = steps.slopes([one, two], 0.95)
    assert [found[name].mean for name in ("relations", "heads_layers", "sum")] == pytest.approx([1, -1, 0], abs=1e-9)


def test_no_exponents_without_two_doses_and_two_shapes():
    taken = lambda h, r, seed: 500 + seed  # noqa: E731
    assert steps.slopes([runs(taken, (8,))], 0.95) is None
    assert steps.slopes([runs(taken, doses=(6,))], 0.95) is None
    assert steps.slopes([pd.DataFrame()], 0.95) is None


WORDS = "{} demand, any sources, {}"


def arm(demand: str, table, layers=1) -> Arm:
    data, model = {"demand": demand, "sources": "any"}, {"num_layers": layers}
    config = {"data": data, "model": model, "dose": {"starts": []}}
    return Arm("runs/arm", config, arms.condition(config), doses=table)


def corrected(cells) -> list:
    return c4a_slower.corrected(cells, 0.95)


def slow(gap, spread):
    """One head takes about exp(gap) times as long at six relations."""
    draw = np.random.default_rng(1)
    noise = draw.normal(0, spread, 6)
    return lambda h, r, seed: round(900 * np.exp((gap + noise[seed % 6]) * (h == 1 and r == 6)))


def test_holm_over_the_cells():
    """What one cell alone supports is not supported among four of no effect; a clear one is."""
    weak, clear, none = (runs(slow(*shape)) for shape in ((0.92, 0.6), (2.0, 0.2), (0.4, 0.5)))
    (alone,) = corrected([arm("a", weak)])
    assert alone.decision.verdict == "supported" and alone.holds and 0.01 < alone.p_value < 0.05
    cells = [arm("a", weak), arm("b", clear, 2), *(arm(name, none) for name in "cde")]
    found = {one.words: one for one in corrected(cells)}
    one = found[WORDS.format("a", "1 layer")]
    assert one.decision.verdict == "supported" and not one.holds
    assert found[WORDS.format("b", "2 layers")].holds and not found[WORDS.format("c", "1 layer")].holds


def test_the_p_value_is_that_of_the_rule():
    """Below .05 exactly where the rule on the interval says supported."""
    for seed in range(30):
        draw = np.random.default_rng(seed)
        noise = draw.normal(0, 0.4, (6, 2))
        gap = draw.uniform(0.3, 1.6)
        table = runs(lambda h, r, s, n=noise, g=gap: 900 * np.exp((g * (r == 6) + n[s, int(r == 6)]) * (h == 1)))
        (one,) = corrected([arm("a", table)])
        if not np.isnan(one.p_value):
            assert (one.p_value < 0.05) == (one.decision.verdict == "supported")


def test_cells_that_are_not_testable_are_no_part_of_the_family():
    lost = runs(lambda h, r, seed: 20_000 if (h, r) == (8, 6) else 900 + seed)
    halves = runs(slow(2.0, 0.2), doses=(1, 4))
    found = corrected([arm("a", lost), arm("b", halves)])
    assert [one.words for one in found] == [WORDS.format("a", "1 layer")]
    assert np.isnan(found[0].p_value) and not found[0].holds


def test_an_mlp_first_is_a_condition_of_its_own(tmp_path):
    """Its runs are those of that start, beside drawn ones of the same workdir that have attention in both layers."""
    both = pd.concat([runs(slow(0.0, 0.1), layers=2), runs(slow(2.0, 0.1), layers=2).assign(stage="mlp_first")])
    config = study(tmp_path / "primary")
    study(tmp_path / "deep", runs(slow(0.0, 0.1), layers=2), model__num_layers=2)
    study(tmp_path / "mlp", both, model__num_layers=2, dose__starts=("mlp_first",))
    beside = arms.load([str(tmp_path / name) for name in ("deep", "mlp")], as_recorded(config))
    deep, mlp = corrected(beside)
    assert mlp.words == f"{deep.words}, the first an MLP alone" and mlp.holds and not deep.holds
    assert mlp.decision.interval.mean > 1.9 and deep.decision.interval.mean < 0.1


def study(folder, table=None, **changes):
    config = relations.get_config()
    for name, value in changes.items():
        section, field = name.split("__")
        config[section][field] = value
    config = freeze(config.to_dict())
    workdir = Workdir(folder)
    workdir.write_record(config, "cpu", "f" * 64)
    if table is not None:
        write_table(workdir.results / "dose.csv", table)
    return config


def as_recorded(config):
    return json.loads(json.dumps(dataclasses.asdict(config)))


def test_the_verdict_cites_them(tmp_path, capsys):
    """From the command line, in the results and on the page; another condition alone is no depth of this one."""
    workdir, cells, config = dose_workdir(tmp_path / "primary", slow(1.6, 0.2))
    study(tmp_path / "deep", runs(slow(2.0, 0.2), layers=2), model__num_layers=2)
    study(tmp_path / "switch", runs(slow(0.0, 0.2)), data__demand="switch")
    arms = f"--arms={tmp_path / 'deep'},{tmp_path / 'switch'}"
    assert main(["--mode=report", f"--workdir={workdir.path}", arms]) == 0
    slower = read_json(workdir.results / "claims.json")[0]
    said = " ".join(slower["notes"])
    assert (
        "Secondary, joint demand, exchangeable sources, 2 layers: " in said and ": supported under Holm (p = " in said
    )
    assert "Secondary, switch demand, exchangeable sources, 1 layer: " in said and "not supported under Holm" in said
    powers = steps.slopes(
        [steps.fresh_runs(doses.write_table(workdir, cells, config)), runs(slow(2.0, 0.2), layers=2)], 0.95
    )
    assert f"T goes with the relations to the power {powers['relations'].mean:+.2f} (" in said
    assert "Secondary, joint demand" in (workdir.report / "index.html").read_text()
    assert main(["--mode=report", f"--workdir={workdir.path}", f"{arms},{tmp_path / 'deep'}"]) == 2
    assert "names two studies of joint demand, exchangeable sources, 2 layers" in capsys.readouterr().err


def test_what_is_no_secondary_cell(tmp_path):
    config = as_recorded(study(tmp_path / "primary"))
    with pytest.raises(InputError, match="holds no runs of a study of doses"):
        arms.load([str(tmp_path / "primary")], config)
    study(tmp_path / "same", runs(slow(1.0, 0.1)))
    with pytest.raises(InputError, match="differs from this one in nothing; a secondary cell differs in data.demand"):
        arms.load([str(tmp_path / "same")], config)
    study(tmp_path / "noisy", runs(slow(1.0, 0.1)), data__noise=0.1, data__demand="switch")
    with pytest.raises(InputError, match="data.noise: "):
        arms.load([str(tmp_path / "noisy")], config)
    flags = ["--config=configs/relations.py", f"--workdir={tmp_path / 'new'}", f"--arms={tmp_path / 'nowhere'}"]
    assert main(flags) == 2 and not (tmp_path / "new").exists()
