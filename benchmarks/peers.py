"""What ours is timed against: JAX's and Flax's attention, and PyTorch in a process beside."""

import json
import pathlib
import subprocess
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

INSTALL = "python -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.13.0"


def jax_nn(q, k, v, *, scale, causal, segments_BT=None, path="auto"):
    """`jax.nn.dot_product_attention`, with the signature of `dispatch.attend`."""
    del segments_BT, path
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal, scale=scale)


def flax_linen(q, k, v, *, scale, causal, segments_BT=None, path="auto"):
    """The attention of Flax's MultiHeadDotProductAttention."""
    del scale, segments_BT, path
    mask = nn.make_causal_mask(jnp.ones(q.shape[:2])) if causal else None
    return nn.dot_product_attention(q, k, v, mask=mask)


def identity(q, k, v, *, scale, causal, segments_BT=None, path="auto"):
    """No attention, but query, key and value in use, so that their projections stay in the program."""
    del scale, causal, segments_BT, path
    return q + k + v


class Torch:
    """A PyTorch process that runs one case at a time on `device`; `python` may belong to another environment."""

    def __init__(self, python: str, threads: int, device: str = "cpu"):
        script = pathlib.Path(__file__).with_name("torch_peer.py")
        self.process = subprocess.Popen(
            [python, str(script), str(threads), device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{python} has no torch that can use {device}; install it with: {INSTALL}")
        self.version = json.loads(line)["version"]

    def _ask(self, request: dict) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def case(self, case: str, **shape) -> Callable[[], float]:
        """A run of `timing.take_turns`; the case before it is gone."""
        self._ask({"case": case, "shape": shape})

        def run() -> float:
            seconds = self._ask({"run": True})["seconds"]
            time.sleep(0.05)  # its threads spin on after a run, and would slow whoever comes next
            return seconds

        return run
