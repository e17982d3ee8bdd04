"""The compiled training program of one pack."""

import functools
import time
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from train import grid
from train.config import StudyConfig
from train.hosts import memory
from train.run import sharding, starts, step
from train.run.feed import STEPS_PER_DISPATCH, Feed
from train.run.packs import Pack


class Program:
    """Trains one pack, a dispatch of several steps at a time."""

    def __init__(
        self,
        pack: Pack,
        config: StudyConfig,
        feed: Feed,
        before: Iterable["Program"] = (),
        begin: Callable[[dict], dict] | None = None,
        rate: float = 1.0,
        steps_before: int = 0,
    ):
        """Compiles, unless one of the programs `before`, of the same study, serves this pack too.

        Args:
          begin: from the weights that are drawn those that the pack starts with; None: as its replicas' starts say.
          rate: times the replicas' learning rates.
          steps_before: steps whose batches the replicas' weights have seen, so that the next ones follow.

        Under `scan` a program has rows for the larger stage of the study, and trains as many as a pack has.

        Raises:
          OutOfMemory: the compiled program needs more than the limit.
        """
        self.pack, self._mesh = pack, sharding.make_mesh(config.mesh)
        self._train, self._begin, self._rate, self._steps_before = config.train, begin, rate, steps_before
        whole, split = sharding.replicated(self._mesh), sharding.batch(self._mesh)
        stage = pack.rows or grid.most_replicas(config) if pack.replica_map == "scan" else 0
        self._feed, devices = feed, self._mesh.shape["replica"]
        self._rows = -(-max(len(pack.replicas), stage) // devices) * devices
        began = time.perf_counter()
        self._init = functools.partial(step.init, pack.model, config.train)
        self.abstract_state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
            jax.eval_shape(self._init, jnp.zeros(len(pack.replicas), jnp.uint32)),
        )
        same = [one for one in before if self._serves(one)]
        self._compiled = same[0]._compiled if same else self._compile(config, whole, split)
        self.compile_seconds = time.perf_counter() - began
        memory.give_back()
        self.bytes, allowed = memory.compiled_bytes(self._compiled), memory.limit(config.train)
        if self.bytes > allowed:
            raise memory.OutOfMemory(
                f"the compiled program needs {memory.gigabytes(self.bytes)} and {memory.gigabytes(allowed)} are "
                f"available; raise train.memory_limit_gb, or, in another --workdir, raise train.accumulate, set "
                f"model.remat=block, or lower train.batch_size or data.seq_len."
            )

    def _serves(self, other: "Program") -> bool:
        ours, theirs = self.pack, other.pack
        alike = (ours.model, ours.replica_map, bool(ours.dose)) == (theirs.model, theirs.replica_map, bool(theirs.dose))
        return alike and other._rows == self._rows and other._train == self._train

    def _compile(self, config: StudyConfig, whole, split) -> jax.stages.Compiled:
        pack = self.pack
        run = functools.partial(step.run, pack.model, config.train, pack.replica_map, self._feed.bos)
        run = run if self._mesh.shape["replica"] == 1 else sharding.over_devices(run, self._mesh)
        starts = jax.ShapeDtypeStruct((self._rows, STEPS_PER_DISPATCH, config.train.batch_size), jnp.int32)
        state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((self._rows, *leaf.shape[1:]), leaf.dtype, sharding=whole),
            self.abstract_state,
        )
        tokens = jax.ShapeDtypeStruct(self._feed.shape(self._rows), jnp.uint16, sharding=whole)
        rates = jax.ShapeDtypeStruct((self._rows,), jnp.float32, sharding=whole)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        places = (whole, whole, split, whole, whole, whole, whole)
        jitted = jax.jit(run, donate_argnums=0, in_shardings=places, out_shardings=whole)
        return jitted.lower(state, tokens, starts, rates, number, number, number).compile()

    def init(self) -> step.State:
        """The state before step 0, of all rows; spare ones repeat the replicas, so that all packs draw alike many."""
        replicas = [self.pack.replicas[row % len(self.pack.replicas)] for row in range(self._rows)]
        state = self._init(jnp.asarray([replica.init_seed for replica in replicas], jnp.uint32))
        if self._begin is not None:
            state = self.replicas_of(state)
            state = state._replace(params=self._begin(state.params))
        elif any(replica.start != grid.DRAWN for replica in replicas):
            drawn, rows = jax.device_get(state.params), []
            for row, (replica, spoken) in enumerate(zip(replicas, self._feed.languages(replicas), strict=True)):
                own = jax.tree.map(lambda leaf, row=row: leaf[row], drawn)
                rows.append(starts.params(replica.start, self.pack.model, spoken, own))
            state = state._replace(params=jax.tree.map(lambda *leaves: np.stack(leaves), *rows))
        return self.with_spare_rows(jax.device_put(state, sharding.replicated(self._mesh)))

    def with_spare_rows(self, state: step.State) -> step.State:
        """The pack's state with rows of zeros behind, up to those of the program."""
        return _resized(state, self._rows)

    def replicas_of(self, state: step.State) -> step.State:
        """The pack's state without these rows."""
        return _resized(state, len(self.pack.replicas))

    def run(
        self, state: step.State, first_step: int, num_steps: int, rows: Sequence[int] | None = None
    ) -> tuple[step.State, dict[str, jax.Array]]:
        """Dispatches `num_steps` <= STEPS_PER_DISPATCH steps; `state`, of all rows, is donated. See `step.run`.

        Args:
          rows: the pack's replicas that train on, in the order of the first rows of `state`; the rows behind them stay
            as they are. None: all, in their own order.
        """
        pack = self.pack
        replicas = pack.replicas if rows is None else [pack.replicas[row] for row in rows]
        whole = sharding.replicated(self._mesh)
        of_feed = self._steps_before + first_step
        tokens, windows = self._feed.dispatch(replicas, self._rows, of_feed, num_steps, whole)
        rates = np.resize(np.float32([self._rate * replica.learning_rate for replica in replicas]), self._rows)
        numbers = np.int32(first_step), np.int32(num_steps), np.int32(len(replicas))
        windows = jax.device_put(windows, sharding.batch(self._mesh))
        frozen = pack.replica_map == "vmap" and len(replicas) < len(pack.replicas)
        before = jax.tree.map(jnp.copy, state) if frozen else None
        state, metrics = self._compiled(state, tokens, windows, *jax.device_put((rates, *numbers), whole))
        return (_joined(state, before, len(replicas)) if frozen else state), metrics


@jax.jit
def reordered(state: step.State, order: jax.Array) -> step.State:
    """The state with row order[i] as row i."""
    return jax.tree.map(lambda leaf: leaf[order], state)


@jax.jit
def _joined(first: step.State, others: step.State, count: int) -> step.State:
    """The first `count` rows of one state, the others of another."""

    def joined(ours, theirs):
        return jnp.where(jnp.arange(len(ours)).reshape(-1, *[1] * (ours.ndim - 1)) < count, ours, theirs)

    return jax.tree.map(joined, first, others)


def _resized(state: step.State, rows: int) -> step.State:
    """The state cut to `rows`, or with rows of zeros behind."""
    return state if len(state.diverged_at) == rows else _resize(state, rows)


@functools.partial(jax.jit, static_argnums=1)
def _resize(tree, rows: int):
    return jax.tree.map(
        lambda leaf: jnp.pad(leaf[:rows], [(0, max(0, rows - len(leaf)))] + [(0, 0)] * (leaf.ndim - 1)), tree
    )
