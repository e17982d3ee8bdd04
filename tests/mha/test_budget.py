"""Parameters against the real tree, FLOPs against XLA's count, budgets met or refused."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from mha import budget
from mha.transformer import ModelConfig, Transformer


def config(d_model=64, num_heads=4, d_k=None, d_ff=(256, 256), **changes):
    return ModelConfig(257, 32, d_model, num_heads, d_k or d_model // num_heads, d_ff, attention="reference", **changes)


SHAPES = [config(), config(32, 32), config(64, 1, 8, (5, 7, 9)), config(48, 3, 32)]
SHAPES += [config(32, 8, logit_scale=scale) for scale in ("sqrt", "inverse", "learned", "qk_norm")]


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_are_those_of_the_tree(shape):
    tree = jax.eval_shape(lambda: Transformer(shape).init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32)))["params"]
    sizes = {jax.tree_util.keystr(path): leaf.size for path, leaf in jax.tree.leaves_with_path(tree)}
    found = budget.parameters(shape)
    assert found.total == sum(sizes.values())
    assert found.attention == sum(n for path, n in sizes.items() if "w_" in path)
    outside = sum(n for path, n in sizes.items() if re.search("embed|positions", path))
    assert found.non_embedding == found.total - outside


@pytest.mark.parametrize("num_heads", [1, 8, 64])
def test_flops_and_exps_are_those_that_xla_counts(num_heads):
    """XLA counts elementwise work as well: about 6 operations an exp in the softmax, and up to 3 % of the matmuls
    elsewhere (norms, GELU). Its transcendentals are the softmax exps, one tanh a GELU and a root a norm."""
    shape, rows = config(num_heads=num_heads), 4
    model = Transformer(shape)
    tokens = jnp.zeros((rows, shape.seq_len), jnp.int32)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens))
    cost = jax.jit(lambda params: model.apply(params, tokens)[0]).lower(params).cost_analysis()
    count = rows * shape.seq_len
    flops, exps = budget.flops_per_token(shape), budget.exps_per_token(shape)
    assert 0 <= cost["flops"] / count - flops - 6 * exps <= 0.03 * flops
    others = sum(shape.d_ff) + 2 * shape.num_layers + 1
    assert cost["transcendentals"] / count == exps + others


def test_attention_parameters_do_not_depend_on_h():
    counts = {budget.parameters(config(num_heads=h)) for h in (1, 2, 4, 8, 16, 32, 64)}
    assert len(counts) == 1
    assert [budget.exps_per_token(config(num_heads=h)) for h in (1, 64)] == [64, 64 * 64]


@pytest.mark.parametrize("d_model, num_heads, d_k", [(32, 1, 32), (32, 32, 1), (64, 4, 1), (64, 4, 4), (48, 4, 12)])
def test_d_ff_meets_the_budget_by_layer(d_model, num_heads, d_k):
    wanted = budget.parameters(config()).non_embedding
    solved = budget.with_d_ff_for(config(d_model, num_heads, d_k), params=wanted)
    found = budget.parameters(solved).non_embedding
    assert abs(found - wanted) <= d_model <= budget.TOLERANCE * wanted
    assert max(solved.d_ff) - min(solved.d_ff) <= 1
    assert budget.with_d_ff_for(solved, params=wanted) == solved


def test_d_ff_meets_a_flop_budget():
    wanted = budget.flops_per_token(config())
    solved = budget.with_d_ff_for(config(32, 4), flops=wanted)
    assert abs(budget.flops_per_token(solved) - wanted) <= budget.TOLERANCE * wanted


def test_an_exp_can_count_as_flops():
    """h = 16 pays for its exps with a smaller d_ff; counted as nothing, it has the d_ff of h = 1."""
    single, many = config(64, 1), config(64, 16)
    wanted = budget.flops_per_token(single) + 10 * budget.exps_per_token(single)
    solved = budget.with_d_ff_for(many, flops=wanted, flops_per_exp=10)
    spent = budget.flops_per_token(solved) + 10 * budget.exps_per_token(solved)
    assert abs(spent - wanted) <= budget.TOLERANCE * wanted and solved.d_ff < single.d_ff
    assert budget.with_d_ff_for(many, flops=budget.flops_per_token(single)).d_ff == single.d_ff


def test_a_budget_out_of_reach_is_refused_with_its_numbers():
    wanted = budget.parameters(config()).non_embedding
    with pytest.raises(ValueError, match=f"d_model=256.* cannot meet the budget of {wanted:,} non-embedding"):
        budget.with_d_ff_for(config(256, 4), params=wanted)
    with pytest.raises(ValueError, match=r"the nearest d_ff \(177, 177\) gives 6,216"):
        small = dataclasses.replace(config(16, 1), d_ff=(64, 64))
        budget.with_d_ff_for(config(8, 1), params=budget.parameters(small).non_embedding)
