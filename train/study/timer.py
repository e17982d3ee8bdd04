"""How long a program's steps take."""

import time

import jax

from train.run.program import Program
from train.run.step import State


def seconds_a_step(program: Program, state: State, count: int) -> tuple[float, State]:
    """Of a dispatch of `count` steps, all replicas of the program together, waited for; and the state after it."""
    jax.block_until_ready(state)
    began = time.perf_counter()
    state, metrics = program.run(state, 0, count)
    jax.block_until_ready(metrics)
    return (time.perf_counter() - began) / count, state
