"""The XLA flags: the user's own stand, and this JAX knows ours (an unknown flag would end the process)."""

import os
import subprocess
import sys

from train.hosts import xla_flags


def test_the_users_flags_stand(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=128 --xla_another=1")
    xla_flags.use()
    xla_flags.use()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[:2] == ["--xla_cpu_prefer_vector_width=128", "--xla_another=1"]
    assert sorted(flag.partition("=")[0] for flag in flags) == sorted({*xla_flags.FLAGS, "--xla_another"})


def test_a_file_of_flags_stands_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "flags.txt")
    xla_flags.use()
    assert os.environ["XLA_FLAGS"] == "flags.txt"


def test_this_jax_knows_the_flags():
    use_jax = "from train.hosts import xla_flags; xla_flags.use(); import jax; print(jax.numpy.ones(3).sum())"
    without = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    run = subprocess.run([sys.executable, "-c", use_jax], env=without, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "3.0"
