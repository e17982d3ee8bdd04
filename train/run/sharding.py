"""Where arrays live and run: batches split over the `data` axis of the mesh, the replicas of a dispatch over `replica`,
everything else on every device."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from train.config import MeshConfig, refuse


def replica_devices(config: MeshConfig) -> int:
    """Devices that share out the replicas of a program: config.replicas, where 0 means all the accelerators of this
    host, unless they share batches."""
    if config.replicas:
        return config.replicas
    return 1 if config.data > 1 or jax.default_backend() == "cpu" else jax.local_device_count()


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh of `replica_devices` x `config.data` devices.

    Raises:
      InputError: there are fewer devices.
    """
    refuse(
        *(
            f"mesh.{name}={number}, but there are {jax.device_count()} devices; lower it."
            for name, number in dataclasses.asdict(config).items()
            if number > jax.device_count()
        )
    )
    shape = replica_devices(config), config.data
    devices = jax.devices()[: math.prod(shape)]
    return jax.make_mesh(shape, ("replica", "data"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch(mesh: Mesh) -> NamedSharding:
    """For window starts (R, K, B): the batch axis over `data`."""
    return NamedSharding(mesh, PartitionSpec(None, None, "data"))


def over_devices(run: Callable, mesh: Mesh) -> Callable:
    """`run` (step.run, its settings given) with each device of the `replica` axis training its part of the rows,
    by `jax.shard_map`. Of the rows that a pack needs, the first devices have all of theirs, the last the rest."""

    def part(state, tokens_N, starts_RKB, rates_R, first_step, num_steps, num_replicas):
        rows = len(rates_R)
        here = jnp.clip(num_replicas - rows * jax.lax.axis_index("replica"), 0, rows)
        return run(state, tokens_N, starts_RKB, rates_R, first_step, num_steps, here)

    whole, split = PartitionSpec(), PartitionSpec("replica")
    specs = (split, whole, split, split, whole, whole, whole)
    return jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
