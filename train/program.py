"""The compiled training program of one pack."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from train import memory, sharding, step
from train.config import StudyConfig
from train.data import Batches, Corpus
from train.packs import Pack

STEPS_PER_DISPATCH = 64  # at most; the loop dispatches fewer where a step is slow


class Program:
    """Trains one pack, a dispatch of several steps at a time."""

    def __init__(self, pack: Pack, config: StudyConfig, corpus: Corpus):
        """Compiles.

        Raises:
          OutOfMemory: the compiled program needs more than the limit.
        """
        self.pack, self._mesh = pack, sharding.make_mesh(config.mesh.data)
        whole, split = sharding.replicated(self._mesh), sharding.batch(self._mesh)
        self.batch_size, self.seq_len = config.train.batch_size, config.data.seq_len
        self._seeds = jnp.asarray([replica.init_seed for replica in pack.replicas], jnp.uint32)
        self._rates = jax.device_put(np.asarray([r.learning_rate for r in pack.replicas], np.float32), whole)
        self._tokens = _on_device(corpus, whole)
        self._batches = {
            seed: Batches(corpus.num_windows("train", self.seq_len), self.batch_size, self.seq_len, seed)
            for seed in {replica.data_seed for replica in pack.replicas}
        }
        began = time.perf_counter()
        self._init = functools.partial(step.init, pack.model, config.train)
        self.abstract_state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
            jax.eval_shape(self._init, self._seeds),
        )
        run = functools.partial(step.run, pack.model, config.train, pack.replica_map, corpus.bos)
        starts = jax.ShapeDtypeStruct((len(pack.replicas), STEPS_PER_DISPATCH, self.batch_size), jnp.int32)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        self._compiled = (
            jax.jit(
                run,
                donate_argnums=0,
                in_shardings=(whole, whole, split, whole, whole, whole),
                out_shardings=whole,
            )
            .lower(self.abstract_state, self._tokens, starts, self._rates, number, number)
            .compile()
        )
        self.compile_seconds = time.perf_counter() - began
        self.bytes = memory.compiled_bytes(self._compiled)
        allowed = memory.limit(config.train)
        if self.bytes > allowed:
            raise memory.OutOfMemory(
                f"the compiled program needs {memory.gigabytes(self.bytes)} and {memory.gigabytes(allowed)} are "
                f"available; lower train.batch_size or data.seq_len, or raise train.memory_limit_gb."
            )

    def init(self) -> step.State:
        """The state before step 0."""
        return jax.device_put(self._init(self._seeds), sharding.replicated(self._mesh))

    def run(self, state: step.State, first_step: int, num_steps: int) -> tuple[step.State, dict[str, jax.Array]]:
        """Dispatches `num_steps` <= STEPS_PER_DISPATCH steps; `state` is donated. See `step.run`."""
        starts = np.zeros((len(self.pack.replicas), STEPS_PER_DISPATCH, self.batch_size), np.int32)
        drawn = {seed: batches.starts(first_step, num_steps) for seed, batches in self._batches.items()}
        for row, replica in enumerate(self.pack.replicas):
            starts[row, :num_steps] = drawn[replica.data_seed]
        starts = jax.device_put(starts, sharding.batch(self._mesh))
        return self._compiled(state, self._tokens, starts, self._rates, np.int32(first_step), np.int32(num_steps))


@functools.lru_cache(maxsize=1)  # all programs of a study share one copy
def _on_device(corpus: Corpus, place: jax.sharding.Sharding) -> jax.Array:
    return jax.device_put(np.asarray(corpus.tokens_of("train")), place)
