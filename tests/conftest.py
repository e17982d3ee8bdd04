"""Settings of every test: no silent broadcasting between ranks, and the XLA flags of a study."""

import jax

from train import xla_flags

jax.config.update("jax_numpy_rank_promotion", "raise")
xla_flags.use()  # read when JAX first computes
