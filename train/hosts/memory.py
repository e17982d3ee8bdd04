"""How much memory a cell takes: an estimate before anything is compiled, and the compiled program's own account."""

import bisect
import ctypes
import os

import jax

from mha import budget
from mha.transformer import ModelConfig
from train.config import StudyConfig, TrainConfig
from train.hosts import slots


class OutOfMemory(Exception):
    """A compiled program that would not fit; the message has the numbers."""


def ran_out(error: Exception) -> bool:
    """Whether `error` is of a program that does not fit, or of a device or host with no memory left."""
    return isinstance(error, (OutOfMemory, MemoryError)) or "RESOURCE_EXHAUSTED" in str(error)


def limit(config: TrainConfig) -> int:
    """Bytes that a program may take: config.train.memory_limit_gb, else the device's memory, else the host's."""
    if config.memory_limit_gb:
        return int(config.memory_limit_gb * 2**30)
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), slots.memory_limit())


def estimate(model: ModelConfig, replicas: int, replica_map: str, batch_size: int, corpus_tokens: int) -> int:
    """Bytes of a training program, analytically: float32 state of every replica, and per replica that runs at once a
    gradient, an update, and the activations that the backward pass reads of `batch_size` windows."""
    at_once, width = replicas if replica_map == "vmap" else 1, model.num_heads * model.d_k
    state = 4 * budget.parameters(model).total * (3 * replicas + 3 * at_once)
    weights = 3 * model.seq_len * model.num_heads if model.attention == "reference" else 0
    layers = [8 * model.d_model + 5 * width + 4 * d_ff + weights for d_ff in model.d_ff]
    held = {"none": 0, "block": model.d_model, "elementwise": 2 * model.d_model + 3 * width + max(model.d_ff)}
    kept = sum(layers) if model.remat == "none" else max(layers) + model.num_layers * held[model.remat]
    activations = 4 * batch_size * model.seq_len * (kept + 3 * model.vocab_size)
    return state + at_once * activations + 2 * corpus_tokens


def replicas_that_fit(config: StudyConfig, model: ModelConfig, most: int, replica_map: str, corpus_tokens: int) -> int:
    """How many of `most` replicas one program can train by the estimate; at least 1, whether that fits or not."""
    batch_size = config.train.batch_size // config.train.accumulate
    size = lambda replicas: estimate(model, replicas, replica_map, batch_size, corpus_tokens)  # noqa: E731
    return max(1, bisect.bisect_right(range(1, most + 1), limit(config.train), key=size))


def compiled_bytes(compiled: jax.stages.Compiled) -> int:
    """Arguments + outputs + temporaries - aliases of a compiled program (on CPU XLA's `peak_memory_in_bytes` leaves
    temporaries out)."""
    stats = compiled.memory_analysis()
    sizes = stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes
    return sizes - stats.alias_size_in_bytes


def give_back() -> None:
    """Returns to the system what the process has freed: glibc keeps it, 200 MB after a compile."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def gigabytes(number: int) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**27 else f"{number / 2**20:.2f} MiB"
