"""Settings of every test: no silent broadcasting between ranks, one compile cache for the whole run."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
