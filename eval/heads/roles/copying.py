"""Does a head raise the logit of the token that it attends to? The copying score of Olsson et al. 2022, of weights
alone.

Dimension key: V token, D d_model, L layer, H head, K head width.
"""

import numpy as np

MOST_TOKENS = 512


def scores(params: dict, tokens_V: np.ndarray) -> np.ndarray:
    """The copying score of every head, float64 (L, H), from -1 to 1.

    A head's direct path, W_E W_V W_O W_U with the gains of the norms that it reads through and of the last one folded
    in, gives the logits of every token that attending to a token writes. Less their mean, what is negative set to 0,
    `share` is the part of their sum that is on the attended token itself; the score is 2 share - 1, the mean over the
    tokens attended to. Norms and attention scale all logits of a token alike, which leaves its share as it is; position
    embeddings, and what earlier layers write, are left out.

    1: only the attended token; -1: never that token. A head that tells tokens apart at random has 2 / V - 1, since its
    share is 1 / V by symmetry; so a score of V tokens is to be held against that. nan: the head tells nothing.

    Args:
      params: of a mha.transformer.Transformer, without a replica axis.
      tokens_V: those that are attended to and told, at most MOST_TOKENS for memory (V^2 a head).
    """
    as_float = lambda leaf: np.asarray(leaf, np.float64)  # noqa: E731
    embedding_VD = as_float(params["embed"]["embedding"])[tokens_V]
    unembedding_DV = as_float(params["unembed"]["kernel"])[:, tokens_V]
    unembedding_DV = as_float(params["norm_final"]["scale"])[:, None] * unembedding_DV
    rows = []
    for layer in range(sum(name.startswith("block_") for name in params)):
        block = params[f"block_{layer}"]
        read_VD = embedding_VD * as_float(block["norm_attention"]["scale"])
        values_HVK = np.einsum("VD,DHK->HVK", read_VD, as_float(block["attention"]["w_v"]))
        tell_HKV = as_float(block["attention"]["w_o"]) @ unembedding_DV
        rows.append([_score(values_VK @ tell_KV) for values_VK, tell_KV in zip(values_HVK, tell_HKV, strict=True)])
    return np.array(rows)


def _score(logits_VV: np.ndarray) -> float:
    """Of the logits (told) that attending to each token (row) writes."""
    raised_VV = np.maximum(logits_VV - logits_VV.mean(axis=1, keepdims=True), 0)
    total_V = raised_VV.sum(axis=1)
    written = total_V > 1e-12 * max(np.abs(logits_VV).max(), 1e-30)
    return 2 * float(np.mean(np.diag(raised_VV)[written] / total_V[written])) - 1 if written.any() else float("nan")


def frequent(tokens_NT: np.ndarray, length_N: np.ndarray) -> np.ndarray:
    """The at most MOST_TOKENS most frequent tokens of texts, their first token aside, in order."""
    inside_NT = np.arange(tokens_NT.shape[1]) < length_N[:, None]
    found, counts = np.unique(tokens_NT[:, 1:][inside_NT[:, 1:]], return_counts=True)
    return np.sort(found[np.argsort(-counts, kind="stable")[:MOST_TOKENS]])
