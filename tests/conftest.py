"""Settings of every test: no silent broadcasting between ranks, and the XLA flags of a study; --conllu=FILE."""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # two processes share a GPU

import jax  # noqa: E402

from train.hosts import xla_flags  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
xla_flags.use()  # read when JAX first computes


def pytest_addoption(parser):
    parser.addoption("--conllu", help="a CoNLL-U file that tests/train/test_real_trees.py reads; without it, skipped")
