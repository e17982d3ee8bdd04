"""What a config costs: exact parameters, FLOPs and exps a token, and the d_ff that meets a budget.

No bias exists in the model, so a linear map of shape (a, b) has a*b parameters and costs 2*a*b FLOPs a token.
"""

import dataclasses
from typing import NamedTuple

from mha.transformer import ModelConfig

TOLERANCE = 1e-3  # relative; 'equal size' means within this


class Parameters(NamedTuple):
    total: int
    non_embedding: int  # total less token embedding, positions and unembedding
    attention: int  # w_q, w_k, w_v and w_o of all layers


def parameters(config: ModelConfig) -> Parameters:
    """Counts without building the model; tested against the real tree."""
    d_model, layers = config.d_model, config.num_layers
    attention, norms = layers * 4 * d_model * config.num_heads * config.d_k, (2 * layers + 1) * d_model
    scales = {"learned": config.num_heads, "qk_norm": 2 * config.num_heads * config.d_k}.get(config.logit_scale, 0)
    non_embedding = attention + norms + layers * scales + 2 * d_model * sum(config.d_ff)
    return Parameters(non_embedding + (d_model * (2 * config.vocab_size + config.seq_len)), non_embedding, attention)


def flops_per_token(config: ModelConfig) -> int:
    """Forward matmul FLOPs a token: linear maps, unembedding, and q.k and weights.v over all seq_len keys.

    A training step costs three times as much (the backward pass has two matmuls for each). Masked keys are counted,
    as a plain implementation computes them; exps and other elementwise work are not (see `exps_per_token`).
    """
    width = config.num_heads * config.d_k
    linear = parameters(config).attention + 2 * config.d_model * sum(config.d_ff) + config.d_model * config.vocab_size
    return 2 * linear + config.num_layers * 4 * config.seq_len * width


def exps_per_token(config: ModelConfig) -> int:
    """Softmax exps a token, h*T each layer: the price of many heads that FLOP counts hide."""
    return config.num_layers * config.num_heads * config.seq_len


def with_d_ff_for(
    config: ModelConfig, *, params: int | None = None, flops: float | None = None, flops_per_exp: float = 0
) -> ModelConfig:
    """`config` with the d_ff of each layer solved for a budget; layers differ by at most one unit.

    Args:
      config: the shape; its d_ff gives the number of layers only.
      params: non-embedding parameters to meet, or
      flops: forward FLOPs a token to meet, in which an exp of the softmax counts as `flops_per_exp`.

    Raises:
      ValueError: no d_ff of at least 1 in every layer meets the budget to TOLERANCE.
    """
    bare = dataclasses.replace(config, d_ff=(0,) * config.num_layers)
    if params is not None:
        name, budget, used = "non-embedding parameters", params, lambda c: parameters(c).non_embedding
    else:
        name, budget = "FLOPs a token", flops
        used = lambda c: flops_per_token(c) + flops_per_exp * exps_per_token(c)  # noqa: E731
    unit = used(dataclasses.replace(bare, d_ff=(1,) + (0,) * (config.num_layers - 1))) - used(bare)
    each, rest = divmod(max(round((budget - used(bare)) / unit), config.num_layers), config.num_layers)
    solved = dataclasses.replace(config, d_ff=tuple(each + (layer < rest) for layer in range(config.num_layers)))
    if abs(used(solved) - budget) > TOLERANCE * budget:
        raise ValueError(
            f"d_model={config.d_model}, num_heads={config.num_heads}, d_k={config.d_k} with {config.num_layers} layers "
            f"cannot meet the budget of {budget:,} {name} to {TOLERANCE:.1%}: the nearest d_ff {solved.d_ff} gives "
            f"{used(solved):,}. Raise model.d_ff, drop this cell, or set grid.match=none."
        )
    return solved
