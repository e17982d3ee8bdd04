"""What a head does that is no role: entropy, confidence, sinks, rare tokens, and how much it writes.

Dimension key: B text of a block, N text, T query, S key, H head, K head width (J too), D d_model, V vocabulary.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from eval.heads.roles.blocks import Block

SMOOTHING = 1e-4  # of the entropy: A = (1 - s) A + s / n
FARTHEST, FEWEST_PAIRS = 16, 100  # offsets of `semantic`, and pairs that one takes
MEASURES = ("entropy", "confidence", "first", "delimiter", "rare", "self", "output")


def of_weights(weights_BHTS, block: Block, counts_V, delimiter_V, causal: bool) -> dict[str, jax.Array]:
    """What `MEASURES` lists but the output, each (H, B): sums over the queries but the first."""
    length_B, tokens_BT = block.length_B, block.tokens_BT
    length = tokens_BT.shape[1]
    index_T = jnp.arange(length)
    inside_BT = index_T[None] < length_B[:, None]
    counted_BT = inside_BT & (index_T > 0)[None]
    visible_BT = jnp.where(inside_BT, index_T[None] + 1 if causal else length_B[:, None], 1)
    over_queries = lambda values_BHT: jnp.where(counted_BT[:, None], values_BHT, 0).sum(2).T  # noqa: E731
    smooth = (1 - SMOOTHING) * weights_BHTS + SMOOTHING / visible_BT[:, None, :, None]
    seen_BTS = inside_BT[:, None] & jnp.tril(jnp.ones((length, length), bool), 0 if causal else length)[None]
    entropy_BHT = -jnp.where(seen_BTS[:, None], smooth * jnp.log(smooth), 0).sum(3)
    entropy_BHT /= jnp.log(jnp.maximum(visible_BT, 2))[:, None]
    rarity_BS = jnp.where(inside_BT, counts_V[tokens_BT], jnp.inf)
    rarest_BT = (
        jax.lax.cummin(rarity_BS, axis=1)
        if causal
        else jnp.broadcast_to(jnp.min(rarity_BS, 1, keepdims=True), rarity_BS.shape)
    )
    among_BTS = (rarity_BS[:, None] == rarest_BT[:, :, None]) & seen_BTS
    top_BHT = weights_BHTS.max(axis=3)
    hit_BHT = jnp.where(among_BTS[:, None], weights_BHTS, -1).max(axis=3) >= top_BHT
    chance_BT = among_BTS.sum(2) / visible_BT
    return {
        "entropy": over_queries(entropy_BHT),
        "confidence": over_queries(top_BHT),
        "first": over_queries(weights_BHTS[..., 0]),
        "delimiter": over_queries(jnp.einsum("BHTS,BS->BHT", weights_BHTS, delimiter_V[tokens_BT])),
        "rare": over_queries(hit_BHT - chance_BT[:, None]),
        "self": over_queries(jnp.diagonal(weights_BHTS, 0, 2, 3)),
    }


def of_output(heads_BTHK, w_o_HKD, segments_BT) -> dict[str, jax.Array]:
    """Summed norm of what each head adds to the residual stream, over the norm of what all heads of its layer add,
    (H, B): sums over the queries but the first."""
    gram_HKJ = jnp.einsum("HKD,HJD->HKJ", w_o_HKD, w_o_HKD)
    square_BTH = jnp.einsum("BTHK,HKJ,BTHJ->BTH", heads_BTHK, gram_HKJ, heads_BTHK)
    whole_BT = jnp.linalg.norm(jnp.einsum("BTHK,HKD->BTD", heads_BTHK, w_o_HKD), axis=2)
    counted_BT = (segments_BT > 0) & (jnp.arange(segments_BT.shape[1]) > 0)[None]
    share_BTH = jnp.sqrt(jnp.maximum(square_BTH, 0)) / jnp.maximum(whole_BT, 1e-12)[..., None]
    return {"output": jnp.where(counted_BT[..., None], share_BTH, 0).sum(1).T}


def semantic(weights_NHTS: np.ndarray, tokens_NT: np.ndarray, length_N: np.ndarray, embedding_VD: np.ndarray):
    """Do heads attend to tokens that mean alike? (H,): rank correlation of a weight with the cosine of the two tokens'
    embeddings, among pairs that stand equally far apart (offsets 1 ... FARTHEST), pairs of one token left out, the mean
    over offsets by their pairs; nan without any. Our own definition: no source has one.

    Args:
      weights_NHTS: attention of one layer on whole texts.
    """
    unit_VD = embedding_VD / np.maximum(np.linalg.norm(embedding_VD, axis=1, keepdims=True), 1e-12)
    total, pairs = np.zeros(weights_NHTS.shape[1]), 0
    for offset in range(1, min(FARTHEST + 1, tokens_NT.shape[1])):
        text, query = np.nonzero(np.arange(tokens_NT.shape[1]) < length_N[:, None])
        text, query = text[query > offset], query[query > offset]  # the first token is no key
        ours, theirs = tokens_NT[text, query], tokens_NT[text, query - offset]
        kept = ours != theirs
        if kept.sum() < FEWEST_PAIRS:
            continue
        alike = np.sum(unit_VD[ours[kept]] * unit_VD[theirs[kept]], axis=1)
        seen = weights_NHTS[text[kept], :, query[kept], query[kept] - offset]
        ranks = scipy.stats.rankdata(np.column_stack([alike, seen]), axis=0)
        ranks -= ranks.mean(axis=0)
        ranks /= np.maximum(np.linalg.norm(ranks, axis=0), 1e-12)
        total += kept.sum() * (ranks[:, 0] @ ranks[:, 1:])
        pairs += kept.sum()
    return total / pairs if pairs else np.full(len(total), np.nan)
