"""How much of what a head writes another head can read: Q-, K- and V-composition, and what chance gives.

Elhage et al. 2021 ('A Mathematical Framework for Transformer Circuits') score what head b reads of head a by
|M_a M_b| / (|M_a| |M_b|) in Frobenius norms, for row vectors: M_a = W_V W_O of a; M_b = W_Q W_K^T of b for its queries,
the transpose for its keys, W_V W_O for its values. The gains of the RMSNorm that a head reads through are part of its
matrices. All is computed from the (d_model, d_k) factors.

Chance is a random rotation U between the two heads, which keeps both spectra: |M_a U M_b|. With p and q the shares of
the squared singular values, the squared score is sum_ij p_i q_j u_ij^2, u Haar orthogonal. Its mean is 1/d, and its
variance follows from E u_ij^4 = 3 c, E u_ij^2 u_ik^2 = c, E u_ij^2 u_kl^2 = c (d + 1) / (d - 1), c = 1 / (d (d + 2)).
Its tail is that of a Beta(nu/2, nu (d - 1)/2), moved and stretched to this mean and variance, whose nu gives the
skewness of a sum of chi-squares with the weights p_i q_j (Buckley and Eagleson 1988). At d_k = 1 it is exact: the score
is a cosine, and cos^2 has the law Beta(1/2, (d - 1)/2).
cosine, and cos^2 has the law Beta(1/2, (d - 1)/2).
Dimension key: L layer, H head, D d_model, K head width (d_k), N head of any layer (L H), S source head (N), N target.
"""

from typing import NamedTuple

import numpy as np
import scipy.special

KINDS = ("q", "k", "v")
LATER, SAME, EARLIER = "later", "same", "earlier"  # where the target stands, seen from the source
LEAST_SPREAD = 1e-6  # of the squared score, against its mean: below it rotations all give the same


class Compositions(NamedTuple):
    """Of each kind in KINDS, source and target: float64 (3, N, N), heads in the order of layers and then of heads.

    Attributes:
      score: 0 to 1; nan where a head's matrix is 0.
      z: standard deviations of the squared score above what rotations give; nan there too, as is `p`.
      p: share of rotations that give so high a score.
    """

    score: np.ndarray
    z: np.ndarray
    p: np.ndarray


class _Side(NamedTuple):
    """One side of a product, less an orthogonal factor that no norm sees: `factor` (N, K, D), and of the shares of its
    squared singular values the sums of squares and of cubes (N,)."""

    factor: np.ndarray
    squares: np.ndarray
    cubes: np.ndarray


def compositions(params: dict) -> Compositions:
    """Scores of all pairs of heads of one model, whatever their order.

    Args:
      params: of a mha.transformer.Transformer, without a replica axis.
    """
    layers = [_matrices(params[f"block_{layer}"]) for layer in range(number_of_layers(params))]
    w_q_NDK, w_k_NDK, w_v_NDK, w_o_NKD = (np.concatenate(parts) for parts in zip(*layers, strict=True))
    writes = _side(_triangle(w_v_NDK) @ w_o_NKD)
    queries, keys = (
        _side(_triangle(other_NDK) @ read_NDK.swapaxes(1, 2))
        for read_NDK, other_NDK in ((w_q_NDK, w_k_NDK), (w_k_NDK, w_q_NDK))
    )
    values = _side(_triangle(w_o_NKD.swapaxes(1, 2)) @ w_v_NDK.swapaxes(1, 2))
    found = [_composition(writes, reads) for reads in (queries, keys, values)]
    return Compositions(*(np.stack(parts) for parts in zip(*found, strict=True)))


def number_of_layers(params: dict) -> int:
    return sum(name.startswith("block_") for name in params)


def places(layers: int, heads: int) -> np.ndarray:
    """Where each target stands, seen from each source: LATER, SAME or EARLIER, (N, N)."""
    of_head = np.repeat(np.arange(layers), heads)
    return np.array([SAME, LATER, EARLIER])[np.sign(of_head - of_head[:, None])]


def rates(found: Compositions, layers: int, heads: int, alpha: float = 0.05) -> dict[str, float]:
    """The share of the pairs, kinds together, that have p < alpha, by where the target stands; nan where there is no
    pair. LATER is what a model builds, the other two cannot be, and hold the null to account. A head is no pair."""
    where, itself = places(layers, heads), np.eye(layers * heads, dtype=bool)
    shares = {}
    for place in (LATER, SAME, EARLIER):
        p_values = found.p[:, (where == place) & ~itself]
        p_values = p_values[~np.isnan(p_values)]
        shares[place] = float(np.mean(p_values < alpha)) if p_values.size else float("nan")
    return shares


def tail(squared: np.ndarray, spectra: tuple[np.ndarray, ...], d_model: int) -> tuple[np.ndarray, np.ndarray]:
    """z and p of squared scores against random rotations.

    Args:
      squared: of any shape.
      spectra: sums of squares and of cubes of the shares p, then of q, each broadcastable to it.
    """
    squares_p, cubes_p, squares_q, cubes_q = spectra
    c, mean = 1 / (d_model * (d_model + 2)), 1 / d_model
    apart = (d_model + 1) / (d_model - 1) if d_model > 1 else 0.0  # at d_model = 1 there is one entry
    both, one_p, one_q = squares_p * squares_q, squares_p * (1 - squares_q), (1 - squares_p) * squares_q
    second = c * (3 * both + one_p + one_q + apart * (1 - squares_p) * (1 - squares_q))
    spread = np.sqrt(np.maximum(second - mean**2, (LEAST_SPREAD * mean) ** 2))
    freedom = both**3 / (cubes_p * cubes_q) ** 2
    stretched = np.sqrt(2 * mean * (1 - mean) / (freedom * d_model + 2)) / spread  # standard deviation of the Beta
    beta = np.clip(mean + (squared - mean) * stretched, 0, 1)
    p_values = scipy.special.betaincc(freedom / 2, freedom * (d_model - 1) / 2, beta)
    return (squared - mean) / spread, p_values


def _matrices(block: dict) -> tuple[np.ndarray, ...]:
    """w_q, w_k, w_v (H, D, K) and w_o (H, K, D) of one block in float64, gains folded in."""
    attention = block["attention"]
    gain_D11 = np.asarray(block["norm_attention"]["scale"], np.float64)[:, None, None]
    weights = {}
    for name in ("w_q", "w_k", "w_v"):
        w_DHK = gain_D11 * np.asarray(attention[name], np.float64)
        norm = attention.get(f"norm_{name[-1]}")  # of queries and keys, under logit_scale=qk_norm
        w_DHK = w_DHK if norm is None else w_DHK * np.asarray(norm["scale"], np.float64).reshape(1, *w_DHK.shape[1:])
        weights[name] = w_DHK.transpose(1, 0, 2)
    return *weights.values(), np.asarray(attention["w_o"], np.float64)


def _triangle(w_NDK: np.ndarray) -> np.ndarray:
    """R of each matrix's QR decomposition."""
    return np.linalg.qr(w_NDK, mode="r")


def _side(factor_NKD: np.ndarray) -> _Side:
    """Scaled to Frobenius norm 1, nan where it is 0."""
    norms_N11 = np.linalg.norm(factor_NKD, axis=(1, 2), keepdims=True)
    factor_NKD = factor_NKD / np.where(norms_N11 > 0, norms_N11, np.nan)
    gram_NKK = factor_NKD @ factor_NKD.swapaxes(1, 2)
    squares = np.sum(gram_NKK**2, axis=(1, 2))
    return _Side(factor_NKD, squares, np.einsum("nij,nji->n", gram_NKK @ gram_NKK, gram_NKK, optimize=True))


def _composition(writes: _Side, reads: _Side) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score, z and p (N, N) of each source's `writes` in each target's `reads`."""
    heads, rank_s, d_model = writes.factor.shape
    rank_n = reads.factor.shape[1]
    product = writes.factor.reshape(-1, d_model) @ reads.factor.reshape(-1, d_model).T
    np.square(product, out=product)
    squared_SN = product.reshape(heads, rank_s, heads, rank_n).sum(axis=(1, 3))
    spectra = (writes.squares[:, None], writes.cubes[:, None], reads.squares[None], reads.cubes[None])
    return np.sqrt(squared_SN), *tail(squared_SN, spectra, d_model)
