"""Removing heads for real: smaller weights, the same logits as with their gates closed.

Layers keep one number of heads, since a model has one shape: as many as its fullest layer keeps. A layer that keeps
fewer is filled up with heads whose values and output are zero.

Dimension key: D d_model, H head, K head width.
"""

import dataclasses

import jax.numpy as jnp

from eval.heads.importance import orders
from eval.heads.importance.orders import Head
from mha.transformer import ModelConfig
from train.config import refuse

HEAD_AXIS = {"w_q": 1, "w_k": 1, "w_v": 1, "w_o": 0, "logit_scale": 0}


def prune_params(model: ModelConfig, params: dict, removed: list[Head]) -> tuple[ModelConfig, dict]:
    """The model and its parameters without the heads `removed`.

    Raises:
      InputError: a head that is not there, or `qk_norm`, whose RMSNorm runs over the features of all heads.
    """
    refuse(
        model.logit_scale == "qk_norm"
        and "Under logit_scale=qk_norm one RMSNorm runs over the queries of all heads, so removing some changes those "
        "of the others; close their gates instead."
    )
    open_LH = orders.gates(model, removed) > 0
    width = max(1, int(open_LH.sum(axis=1).max()))
    smaller = dict(params)
    for layer, open_H in enumerate(open_LH):
        kept = [*open_H.nonzero()[0], *(~open_H).nonzero()[0]][:width]  # behind those that stay some that fill up
        own = dict(params[f"block_{layer}"]["attention"])
        for name, axis in HEAD_AXIS.items():
            if name in own:
                own[name] = jnp.take(own[name], jnp.asarray(kept), axis=axis)
        spare = int(open_H.sum())
        own["w_v"], own["w_o"] = own["w_v"].at[:, spare:].set(0), own["w_o"].at[spare:].set(0)
        smaller[f"block_{layer}"] = params[f"block_{layer}"] | {"attention": own}
    return dataclasses.replace(model, num_heads=width), smaller
