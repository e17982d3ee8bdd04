"""Timing of peers that take turns, and the machine's own limits."""

import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mha.kernels.exponential import exp_nonpositive


class Timing(NamedTuple):
    median: float  # seconds
    low: float
    high: float


def take_turns(runs: dict[str, Callable[[], float]], rounds: int, seconds: float) -> dict[str, Timing]:
    """Each run to warm up, three times where it is fast, then `rounds` times in turn, in random order; one slower than
    `seconds` three times in all, and all five times as often where each takes a twentieth of that.

    A run returns its own duration in seconds. Only the ratios of what one call returns mean anything: the machine's
    other work slows all of them alike.
    """
    first = {name: run() for name, run in runs.items()}
    for name, run in runs.items():
        for _ in range(2 if first[name] < seconds else 0):
            run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    for turn in range(5 * rounds if max(first.values()) < seconds / 20 else rounds):
        shuffle(order)  # what ran before leaves its mark on the caches
        for name in order:
            if turn < 3 or first[name] < seconds:
                taken[name].append(runs[name]())
    return {name: Timing(statistics.median(times), min(times), max(times)) for name, times in taken.items()}


def timed(function: Callable, *args) -> Callable[[], float]:
    """A run of `take_turns`: one call of `function`, until its result is ready."""

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        return time.perf_counter() - start

    return run


def exp_rate() -> float:
    """Exponentials a second that elementwise code reaches here: 16 independent ones an element, added up."""
    size, repeats = 1 << 17, 20
    x = jnp.asarray(-np.random.default_rng(0).uniform(0, 10, size), jnp.float32)

    @jax.jit
    def run(x):
        def step(_, y):
            return sum(exp_nonpositive(y - jnp.float32(i)) for i in range(16)) * jnp.float32(-0.1)

        return jax.lax.fori_loop(0, repeats, step, x)

    return 16 * size * repeats / take_turns({"exp": timed(run, x)}, 7, 1)["exp"].low


def matmul_rate() -> float:
    """Floating point operations a second of a 1024 x 1024 x 1024 float32 matmul."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1024, 1024)), jnp.float32)
    return 2 * 1024**3 / take_turns({"matmul": timed(jax.jit(jnp.matmul), x, x)}, 7, 1)["matmul"].low
