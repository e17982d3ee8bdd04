"""The compiled training program of one pack."""

import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from train import grid
from train.config import StudyConfig
from train.data.batches import Batches
from train.data.corpora import Corpus
from train.hosts import memory
from train.run import sharding, step
from train.run.packs import Pack

STEPS_PER_DISPATCH = 64  # at most; the loop dispatches fewer where a step is slow


class Program:
    """Trains one pack, a dispatch of several steps at a time."""

    def __init__(self, pack: Pack, config: StudyConfig, corpus: Corpus, before: Sequence["Program"] = ()):
        """Compiles, unless one of the programs `before`, of the same study and cell, serves this pack too.

        Under `scan` a program has rows for the larger stage of the study, and trains as many as a pack has.

        Raises:
          OutOfMemory: the compiled program needs more than the limit.
        """
        self.pack, self._mesh = pack, sharding.make_mesh(config.mesh)
        whole, split = sharding.replicated(self._mesh), sharding.batch(self._mesh)
        self.batch_size, self.seq_len = config.train.batch_size, config.data.seq_len
        self._seeds = jnp.asarray([replica.init_seed for replica in pack.replicas], jnp.uint32)
        self._tokens = _on_device(corpus, whole)
        self._batches = {
            seed: Batches(corpus.num_windows("train", self.seq_len), self.batch_size, self.seq_len, seed)
            for seed in {replica.data_seed for replica in pack.replicas}
        }
        stage = pack.rows or grid.most_replicas(config) if pack.replica_map == "scan" else 0
        devices = self._mesh.shape["replica"]
        self._rows = -(-max(len(pack.replicas), stage) // devices) * devices
        began = time.perf_counter()
        rates = [replica.learning_rate for replica in pack.replicas]
        self._rates = jax.device_put(np.resize(np.asarray(rates, np.float32), self._rows), whole)
        self._init = functools.partial(step.init, pack.model, config.train)
        self.abstract_state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
            jax.eval_shape(self._init, self._seeds),
        )
        same = [one for one in before if self._serves(one)]
        self._compiled = same[0]._compiled if same else self._compile(config, corpus, whole, split)
        self.compile_seconds = time.perf_counter() - began
        memory.give_back()
        self.bytes = memory.compiled_bytes(self._compiled)
        allowed = memory.limit(config.train)
        if self.bytes > allowed:
            raise memory.OutOfMemory(
                f"the compiled program needs {memory.gigabytes(self.bytes)} and {memory.gigabytes(allowed)} are "
                f"available; raise train.memory_limit_gb, or, in another --workdir, raise train.accumulate, set "
                f"model.remat=block, or lower train.batch_size or data.seq_len."
            )

    def _serves(self, other: "Program") -> bool:
        ours, theirs = self.pack, other.pack
        return other._rows == self._rows and (ours.model, ours.replica_map) == (theirs.model, theirs.replica_map)

    def _compile(self, config: StudyConfig, corpus: Corpus, whole, split) -> jax.stages.Compiled:
        pack = self.pack
        run = functools.partial(step.run, pack.model, config.train, pack.replica_map, corpus.bos)
        run = run if self._mesh.shape["replica"] == 1 else sharding.over_devices(run, self._mesh)
        starts = jax.ShapeDtypeStruct((self._rows, STEPS_PER_DISPATCH, self.batch_size), jnp.int32)
        state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((self._rows, *leaf.shape[1:]), leaf.dtype, sharding=whole),
            self.abstract_state,
        )
        number = jax.ShapeDtypeStruct((), jnp.int32)
        return (
            jax.jit(
                run,
                donate_argnums=0,
                in_shardings=(whole, whole, split, whole, whole, whole, whole),
                out_shardings=whole,
            )
            .lower(state, self._tokens, starts, self._rates, number, number, number)
            .compile()
        )

    def init(self) -> step.State:
        """The state before step 0, of all rows."""
        return self.with_spare_rows(jax.device_put(self._init(self._seeds), sharding.replicated(self._mesh)))

    def with_spare_rows(self, state: step.State) -> step.State:
        """The pack's state with rows of zeros behind, up to those of the program."""
        return _resized(state, self._rows)

    def replicas_of(self, state: step.State) -> step.State:
        """The pack's state without these rows."""
        return _resized(state, len(self.pack.replicas))

    def run(self, state: step.State, first_step: int, num_steps: int) -> tuple[step.State, dict[str, jax.Array]]:
        """Dispatches `num_steps` <= STEPS_PER_DISPATCH steps; `state`, of all rows, is donated. See `step.run`."""
        starts = np.zeros((self._rows, STEPS_PER_DISPATCH, self.batch_size), np.int32)
        drawn = {seed: batches.starts(first_step, num_steps) for seed, batches in self._batches.items()}
        for row, replica in enumerate(self.pack.replicas):
            starts[row, :num_steps] = drawn[replica.data_seed]
        starts = jax.device_put(starts, sharding.batch(self._mesh))
        numbers = np.int32(first_step), np.int32(num_steps), np.int32(len(self.pack.replicas))
        numbers = jax.device_put(numbers, sharding.replicated(self._mesh))
        return self._compiled(state, self._tokens, starts, self._rates, *numbers)


def _resized(state: step.State, rows: int) -> step.State:
    """The state cut to `rows`, or with rows of zeros behind."""
    return state if len(state.diverged_at) == rows else _resize(state, rows)


@functools.partial(jax.jit, static_argnums=1)
def _resize(tree, rows: int):
    return jax.tree.map(
        lambda leaf: jnp.pad(leaf[:rows], [(0, max(0, rows - len(leaf)))] + [(0, 0)] * (leaf.ndim - 1)), tree
    )


@functools.lru_cache(maxsize=1)  # all programs of a study share one copy
def _on_device(corpus: Corpus, place: jax.sharding.Sharding) -> jax.Array:
    return jax.device_put(np.asarray(corpus.tokens_of("train")), place)
