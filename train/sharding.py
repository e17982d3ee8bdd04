"""Where arrays live: batches split over the `data` axis of the mesh, everything else on every device."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from train.config import InputError


def make_mesh(data: int) -> Mesh:
    """A mesh of `data` devices.

    Raises:
      InputError: there are fewer devices.
    """
    if data > jax.device_count():
        raise InputError(f"mesh.data={data}, but there are {jax.device_count()} devices; lower config.mesh.data.")
    return jax.make_mesh((data,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:data])


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch(mesh: Mesh) -> NamedSharding:
    """For window starts (R, K, B): the batch axis over `data`."""
    return NamedSharding(mesh, PartitionSpec(None, None, "data"))
