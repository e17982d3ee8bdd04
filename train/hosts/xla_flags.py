"""The XLA flags that make a study faster, in one place; measured by the commands in their comments."""

import os

# Ratios of a training step on 2 cores with AVX-512: python -m benchmarks.attention --parts step, with and without.
FLAGS = {
    # Products by YNNPACK, reductions by XLA's own loops: 0.86 of the time at d_model 64, h = 1.
    "--xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    # Whole AVX-512 registers, where a processor has them: 0.71 of the time at d_model 64, d_k = 1.
    "--xla_cpu_prefer_vector_width": "512",
}


def use() -> None:
    """Adds FLAGS to the environment's XLA_FLAGS, except those that it already sets; where that names a file of flags,
    which is all that XLA reads then, adds none. Call before JAX's first use."""
    given = os.environ.get("XLA_FLAGS", "").split()
    if given and not given[0].startswith("-"):
        return
    named = {flag.partition("=")[0] for flag in given}
    os.environ["XLA_FLAGS"] = " ".join([*given, *(f"{name}={FLAGS[name]}" for name in FLAGS if name not in named)])
