"""A trained cell from its checkpoint alone: the model, its weights, its replicas and the data split."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp

from mha.transformer import Transformer
from train.config import InputError
from train.data import corpora
from train.run import checkpoint, packs
from train.run.packs import Pack


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint holds.

    Attributes:
      pack: the model's shape, its replicas and the settings that they were trained with.
      params: weights, each leaf with the replica axis in front, in the order of `pack.replicas`.
      diverged_at: int (R,), the step at which a replica diverged, -1 if it did not.
      step: training steps done.
      config: the study's config as nested dicts.
      corpus: the study's tokens and split, verified against the fingerprint in the checkpoint.
    """

    pack: Pack
    params: dict
    diverged_at: jax.Array
    step: int
    config: dict
    corpus: corpora.Corpus


def restore(cell: pathlib.Path, pack: int = 0, corpus: corpora.Corpus | None = None) -> Restored:
    """The newest checkpoint of one pack of the cell at `cell` (a folder `WORKDIR/cells/NAME`).

    Args:
      corpus: the workdir's corpus if it is open already; read from WORKDIR/data otherwise.

    Raises:
      InputError: the corpus is not the one trained on.
      checkpoint.CorruptCheckpoint: there is no checkpoint, or the newest does not read back as it was written.
    """
    folder = pathlib.Path(cell) / "checkpoints" / f"pack_{pack}"
    steps = checkpoint.steps_in(folder)
    if not steps:
        raise checkpoint.CorruptCheckpoint(f"{folder} holds no checkpoint.")
    description = checkpoint.describe(folder, steps[0])
    corpus = corpus or corpora.open_corpus(pathlib.Path(cell).parent.parent / "data")
    if corpus.fingerprint != description["data_fingerprint"]:
        raise InputError(
            f"{folder} was trained on data {description['data_fingerprint'][:12]}, and the workdir holds "
            f"{corpus.fingerprint[:12]}; restore the workdir's data folder."
        )
    trained = packs.from_json(description["pack"])
    items = checkpoint.restore(folder, steps[0], _abstract(trained))
    return Restored(trained, items["params"], items["replicas"]["diverged_at"], steps[0], description["config"], corpus)


def _abstract(pack: Pack) -> dict:
    replicas = len(pack.replicas)
    init = Transformer(pack.model).init
    one = jax.eval_shape(lambda: init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"])
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shape = lambda leaf: jax.ShapeDtypeStruct((replicas, *leaf.shape), leaf.dtype, sharding=place)  # noqa: E731
    return {
        "params": jax.tree.map(shape, one),
        "replicas": {"diverged_at": jax.ShapeDtypeStruct((replicas,), jnp.int32, sharding=place)},
    }
