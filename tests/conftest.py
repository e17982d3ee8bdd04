"""Settings of every test: no silent broadcasting between ranks, and the XLA flags of a study."""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # two processes share a GPU

import jax  # noqa: E402

from train import xla_flags  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
xla_flags.use()  # read when JAX first computes
