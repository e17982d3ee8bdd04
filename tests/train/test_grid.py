"""Config -> cells -> replicas: shapes, budgets, names, refusals."""

import collections
import dataclasses

import pytest

from configs import default, lm1b, smoke
from mha import budget
from train import grid
from train.config import InputError, freeze


def config(**changes):
    values = default.get_config().to_dict()
    for name, value in changes.items():
        section, field = name.split("__")
        values[section][field] = value
    return freeze(values)


def names(found):
    return [cell.name for cell in found]


def test_empty_num_heads_is_every_power_of_two_and_d_model():
    cells = grid.cells_of(config(grid__d_model=(8, 12), grid__head_ratio=2, grid__match="none"), 257)
    assert names(cells)[:4] == ["d008_h001", "d008_h002", "d008_h004", "d008_h008"]
    assert names(cells)[4:] == ["d012_h001", "d012_h002", "d012_h004", "d012_h012"]
    assert all(cell.model.num_heads * cell.model.d_k == cell.model.d_model for cell in cells)


def test_head_ratio_thins_the_grid():
    cells = grid.cells_of(config(grid__d_model=(32, 64), grid__head_ratio=4), 257)
    assert [cell.model.num_heads for cell in cells] == [1, 4, 16, 32, 1, 4, 16, 64]
    with pytest.raises(InputError, match="head_ratio=1"):
        config(grid__head_ratio=1)


@pytest.mark.parametrize("module", [default, smoke, lm1b])
def test_every_config_has_one_budget_and_both_extremes(module):
    frozen = freeze(module.get_config().to_dict())
    cells = grid.cells_of(frozen, 257)
    counts = [budget.parameters(cell.model) for cell in cells]
    sizes = [count.non_embedding for count in counts]
    assert max(sizes) - min(sizes) <= budget.TOLERANCE * min(sizes)
    for d_model in frozen.grid.d_model:
        assert len({c.attention for c, cell in zip(counts, cells, strict=True) if cell.model.d_model == d_model}) == 1
    assert {1} <= {cell.model.num_heads for cell in cells} and {1} <= {cell.model.d_k for cell in cells}


def test_depth_against_heads_at_one_budget():
    cells = grid.cells_of(config(grid__d_model=(64,), grid__num_heads=(1, 8), grid__num_layers=(1, 2, 4)), 257)
    assert names(cells)[:3] == ["d064_h001_L01", "d064_h001_L02", "d064_h001_L04"]
    assert [cell.model.num_layers for cell in cells] == [1, 2, 4] * 2
    sizes = [budget.parameters(cell.model).non_embedding for cell in cells]
    assert max(sizes) - min(sizes) <= budget.TOLERANCE * min(sizes)


def test_every_logit_scale_is_a_cell_of_the_same_shape_and_budget():
    scales = ("sqrt", "inverse", "learned", "qk_norm")
    cells = grid.cells_of(config(grid__d_model=(64,), grid__num_heads=(1, 64), grid__logit_scales=scales), 257)
    assert names(cells)[:4] == ["d064_h001", "d064_h001_inverse", "d064_h001_learned", "d064_h001_qk_norm"]
    assert [cell.shape for cell in cells] == ["d064_h001"] * 4 + ["d064_h064"] * 4
    assert tuple(cell.model.logit_scale for cell in cells[:4]) == scales
    sizes = [budget.parameters(cell.model).non_embedding for cell in cells]
    assert max(sizes) - min(sizes) <= budget.TOLERANCE * min(sizes)
    with pytest.raises(InputError, match="config.grid.logit_scales='cosine' is not one of sqrt, inverse"):
        config(grid__logit_scales=("sqrt", "cosine"))


def test_equal_flops_differ_from_equal_parameters_only_if_an_exp_counts():
    shape = {"grid__d_model": (64,), "grid__num_heads": (1, 8)}
    widths = [
        [cell.model.d_ff for cell in grid.cells_of(config(**shape, **more), 257)]
        for more in (
            {},
            {"grid__match": "flops"},
            {"grid__match": "flops", "grid__flops_per_exp": 20.0},
        )
    ]
    assert widths[0] == widths[1] and widths[2][0] == widths[0][0] and widths[2][1] < widths[0][1]
    with pytest.raises(InputError, match="counts under grid.match=flops alone"):
        config(grid__flops_per_exp=20.0)


def test_d_k_apart_from_num_heads():
    cells = grid.cells_of(config(grid__d_model=(64,), grid__num_heads=(4,), grid__d_k=(1, 4, 16)), 257)
    assert names(cells) == ["d064_h004_dk01", "d064_h004_dk04", "d064_h004"]
    sizes = [budget.parameters(cell.model).non_embedding for cell in cells]
    assert max(sizes) - min(sizes) <= budget.TOLERANCE * min(sizes)
    assert cells[0].model.d_ff > cells[1].model.d_ff > cells[2].model.d_ff


def test_flops_can_be_matched_instead():
    cells = grid.cells_of(config(grid__match="flops"), 257)
    flops = [budget.flops_per_token(cell.model) for cell in cells]
    assert max(flops) - min(flops) <= budget.TOLERANCE * min(flops)
    assert len({budget.parameters(cell.model).non_embedding for cell in cells}) > 1


def test_replicas_are_rates_with_seeds():
    paired = config(grid__init_seeds=(3, 5), grid__tuning_seeds=(7,))
    assert grid.judged_seeds(paired) == ((3, 3), (5, 5)) and grid.choosing_seeds(paired) == ((7, 7),)
    found = grid.replicas((0.1, 0.2), grid.judged_seeds(paired))
    expected = [(0.1, 3, 3), (0.1, 5, 5), (0.2, 3, 3), (0.2, 5, 5)]
    assert [dataclasses.astuple(r) for r in found] == [(*each, grid.DRAWN) for each in expected]
    crossed = config(grid__init_seeds=(3, 5), grid__data_seeds=(7, 8), grid__seeds="crossed")
    assert grid.judged_seeds(crossed) == ((3, 7), (3, 8), (5, 7), (5, 8))
    assert len({r.name for r in grid.replicas((0.1,), grid.judged_seeds(crossed))}) == 4
    without = config(grid__tuning_seeds=(), grid__extensions=0)
    assert grid.choosing_seeds(without) == grid.judged_seeds(without)


def test_a_cell_begins_with_the_runs_that_choose_its_rate():
    first = grid.cells_of(config(grid__learning_rates=(0.1, 0.2), grid__tuning_seeds=(7,)), 257)[0]
    assert first.replicas == grid.replicas((0.1, 0.2), ((7, 7),))


def test_repeats_are_spread_over_all_seeds():
    seeds = {"grid__init_seeds": (0, 1, 2, 3), "grid__data_seeds": (5, 6, 7, 8), "grid__seeds": "crossed"}
    crossed = config(**seeds, grid__repeats=8, grid__tuning_seeds=(), grid__extensions=0, grid__learning_rates=(0.1,))
    runs = grid.cells_of(crossed, 257)[0].replicas
    again = [run for run in runs if run.start == grid.PERTURBED]
    assert len(runs) == 24 and len({run.name for run in runs}) == 24
    for name in ("init_seed", "data_seed"):
        counts = collections.Counter(getattr(run, name) for run in again)
        assert len(counts) == 4 and set(counts.values()) == {2}
    assert grid.repeated(config(), (0.1,)) == ()


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"grid__num_heads": (1, 12)}, "num_heads=12 does not divide d_model=32; divisors: 1, 2, 4, 8, 16, 32"),
        ({"grid__d_model": (0, 64)}, "must be above 0"),
        ({"grid__num_heads": (-1,)}, "must be above 0"),
        ({"grid__d_model": ()}, "config.grid.d_model is empty"),
        ({"grid__learning_rates": (0.1, 0.1)}, "names a value twice"),
        ({"grid__learning_rates": (float("nan"),)}, "must be above 0 and finite"),
        ({"grid__learning_rates": ("a",)}, "each of its values a number"),
        ({"grid__seeds": "crossed"}, "needs grid.data_seeds"),
        ({"grid__data_seeds": (4,)}, "leave data_seeds empty, or set grid.seeds=crossed"),
        ({"grid__tuning_seeds": (2, 7)}, "the seeds that are judged share [2]"),
        (
            {"grid__tuning_seeds": (7,), "grid__data_seeds": (7,), "grid__seeds": "crossed"},
            "give grid.tuning_seeds other numbers",
        ),
        ({"grid__repeats": 1}, "set grid.seeds=crossed, or fewer repeats"),
        ({"grid__seeds": "crossed", "grid__data_seeds": (1, 2), "grid__repeats": 7}, "and there are 6 of them"),
        ({"train__windows": "halves", "grid__init_seeds": (0, 2, 4)}, "are all alike; give both kinds"),
        ({"grid__tuning_seeds": ()}, "grid.extensions=1 extends the rates of the tuning stage"),
        ({"claims__margin": 0.0}, "config.claims.margin=0.0 must be above 0"),
        ({"claims__tolerance": -0.1}, "config.claims.tolerance=-0.1 must be above 0"),
        ({"claims__looks": 0}, "config.claims.looks=0 must be above 0"),
        ({"grid__match": "size"}, "is not one of params, flops, none"),
        ({"model__num_layers": 0}, "must be above 0"),
        ({"model__num_layers": True}, "must be a whole number"),
        ({"model__dtype": "float16"}, "is not one of float32, bfloat16, float64 (its softmax would overflow"),
        ({"train__warmup_steps": 500}, "train.warmup_steps=500 must be below train.steps=500"),
        ({"eval__stride": 65}, "exceeds data.seq_len=64"),
        ({"data__tune_fraction": 0.6, "data__test_fraction": 0.5}, "leave nothing to train on"),
        ({"mesh__data": 3}, "make it a multiple of 3"),
    ],
)
def test_bad_values_are_sentences(changes, sentence):
    with pytest.raises(InputError) as caught:
        grid.cells_of(config(**changes), 257)
    assert sentence in str(caught.value)


def test_unknown_and_missing_fields_are_named():
    values = default.get_config().to_dict()
    values["train"]["stepz"] = 3
    with pytest.raises(InputError, match="no field 'stepz'; did you mean steps"):
        freeze(values)
    values = default.get_config().to_dict()
    del values["train"]["steps"]
    with pytest.raises(InputError, match="config.train lacks steps"):
        freeze(values)


def test_cells_that_cannot_meet_the_budget_are_all_named():
    with pytest.raises(InputError) as caught:
        grid.cells_of(config(grid__d_model=(8, 16), grid__num_heads=(1, 8)), 257)
    assert str(caught.value).count("cannot meet the budget") == 2
