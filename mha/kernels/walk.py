"""A loop over keys (or queries) that folds them into rows' accumulators, heads along a CPU's vector lanes.

For the paths with so few numbers a head that a matmul's tile would be empty but for a column or two: every operation is
elementwise over (B, rows, H).

Dimension key: B batch, T position, R row of a block, H head.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mha.kernels.batching import fold_vmap, in_pieces, largest_divisor

_ROWS = 64  # rows whose accumulators a loop holds
_STEP = 8  # keys (or queries) that one kernel folds in
_LANES = 2048  # batch entries x heads worked on at once: accumulators and operands of 64 rows stay within 4 MB
_VECTOR = 16  # float32 numbers of the widest vector: XLA:CPU leaves what does not fill vectors to scalar code


def batched(function: Callable) -> Callable:
    """`function` of (B, T, H) arrays, padded to whole blocks of rows and applied to pieces of the batch.

    Its fourth argument is None or segment ids (B, T), which it gets as (B, T, 1) or (B, T, H). Where the heads do not
    fill vectors, several entries of the batch stand side by side as heads.
    """

    @fold_vmap
    def run(arrays):
        batch, length, heads = arrays[0].shape
        rows = min(_ROWS, -(-length // _STEP) * _STEP)
        spare, segments_BT = -length % rows, arrays[3]
        if segments_BT is None and spare:
            segments_BT = jnp.ones((batch, length), jnp.int32)
        segments_BT1 = None if segments_BT is None else segments_BT[..., None]
        arrays = [*arrays[:3], segments_BT1, *arrays[4:]]
        arrays = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, spare), (0, 0))), arrays)
        beside = math.gcd(batch, _VECTOR // math.gcd(heads, _VECTOR))
        if beside > 1:
            arrays = jax.tree.map(lambda x: _side_by_side(x, beside, heads), arrays)
        piece = largest_divisor(batch // beside, _LANES // (beside * heads))
        out = in_pieces(lambda *part: function(*part, rows=rows), piece, *arrays)
        return [_apart(x, beside)[:, :length] for x in out]

    return lambda *arrays: run(list(arrays))


def _side_by_side(x_BTH, beside: int, heads: int):
    """(B, T, H or 1) -> (B / beside, T, beside H)."""
    batch, length, _ = x_BTH.shape
    x_BTH = jnp.broadcast_to(x_BTH, (batch, length, heads))
    return x_BTH.reshape(-1, beside, length, heads).swapaxes(1, 2).reshape(-1, length, beside * heads)


def _apart(x_BTH, beside: int):
    """What `_side_by_side` put together."""
    count, length, lanes = x_BTH.shape
    return x_BTH.reshape(count, length, beside, -1).swapaxes(1, 2).reshape(-1, length, lanes // beside)


class Rows(NamedTuple):
    """A block of rows and what it sees."""

    start: jax.Array
    size: int
    segments_BRH: jax.Array | None
    causal: bool

    def see(self, index, segments_B1H, as_queries: bool = True):
        """Whether these rows see the position at `index`, or, not `as_queries`, are seen from it; None: all see all."""
        index_1R1 = self.start + jnp.arange(self.size)[None, :, None]
        see = (index_1R1 >= index if as_queries else index >= index_1R1) if self.causal else None
        if segments_B1H is not None:
            same = (self.segments_BRH == segments_B1H) & (segments_B1H != 0)
            see = same if see is None else see & same
        return see

    def seen(self, length: int) -> dict:
        """The span of what these rows, as queries, see at most, for `fold`."""
        return dict(start=0, stop=self.start + self.size if self.causal else length)

    def seeing(self, length: int) -> dict:
        """The span of what at most sees these rows, as keys, for `fold`."""
        return dict(start=self.start if self.causal else 0, stop=length)


def over_blocks(function: Callable, filled, arrays: tuple, segments_BTH, *, size: int, causal: bool):
    """`filled`, arrays (B, T, H), with the rows that `function(rows, *entries)` gives a block of `size` rows at a time,
    where `entries` are those of `arrays` there."""

    def one(number, filled):
        start = number * size
        entries, segments_BRH = cut((arrays, segments_BTH), start, size)
        return put(filled, function(Rows(start, size, segments_BRH, causal), *entries), start)

    return jax.lax.fori_loop(0, arrays[0].shape[1] // size, one, filled)


def fold(update: Callable, sums: jax.Array, arrays: tuple, *, start, stop) -> jax.Array:
    """`sums` after `update(sums, index, *entries)` for each index from `start` to `stop` (multiples of _STEP), where
    `entries` are the arrays' entries (B, 1, ...) at that index.

    The next entries are cut at the end of a step and carried: a cut at a traced index inside the update's kernel would
    be loaded anew for every element, and LLVM would not vectorise it. Sums are one array, real or complex: XLA:CPU
    turns two outputs into two kernels, each with its own exponentials, and one complex output into a single kernel
    spread over the threads.
    """

    def step(number, carry):
        sums, entries = carry
        for i in range(_STEP):
            sums = update(sums, number * _STEP + i, *(None if x is None else x[:, i : i + 1] for x in entries))
        return sums, cut(arrays, (number + 1) * _STEP, _STEP)

    return jax.lax.fori_loop(start // _STEP, stop // _STEP, step, (sums, cut(arrays, start, _STEP)))[0]


def where(see, x, otherwise):
    """As jnp.where; `see` is None where all is seen."""
    return x if see is None else jnp.where(see, x, otherwise)


def cut(arrays, start, size: int):
    """Rows from `start` of every array in a pytree."""
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=1), arrays)


def put(filled, blocks, start):
    """The arrays `filled` with `blocks` as their rows from `start`."""
    return jax.tree.map(lambda x, block: jax.lax.dynamic_update_slice_in_dim(x, block, start, axis=1), filled, blocks)
