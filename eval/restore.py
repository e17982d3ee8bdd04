"""A trained cell from its checkpoint alone: the model, its weights, its replicas and what they read."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mha.transformer import Transformer
from train import grid
from train.config import InputError, StudyConfig, freeze, refuse
from train.data import corpora
from train.run import checkpoint, feed, packs


class NotReproduced(Exception):
    """A restored cell does not give the loss that was measured at the end of its training."""


@dataclasses.dataclass(frozen=True, eq=False)
class Restored:
    """What a checkpoint holds.

    Attributes:
      cell: its name.
      pack: the model's shape, its replicas and the settings that they were trained with.
      params: weights, each leaf with the replica axis in front, in the order of `pack.replicas`.
      diverged_at: int (R,), the step at which a replica diverged, -1 if it did not.
      step: training steps done.
      config: the study's config as nested dicts.
      corpus: the study's tokens and split, verified against the fingerprint in the checkpoint; None where every seed
        speaks a language of its own (train.data.relations.doses).
      trained: what training recorded in packs.json at its end; None where nobody gave it.
      folder: of the cell; None of a pack that was made by hand.
    """

    cell: str
    pack: packs.Pack
    params: dict
    diverged_at: jax.Array
    step: int
    config: dict
    corpus: corpora.Corpus | None
    trained: dict | None = None
    folder: pathlib.Path | None = None

    @functools.cached_property
    def study(self) -> StudyConfig:
        return freeze(self.config)

    @property
    def finished(self) -> list[int]:
        """The places in `pack.replicas` of the runs from drawn weights that did not diverge."""
        runs = enumerate(self.pack.replicas)
        return [place for place, run in runs if run.start == grid.DRAWN and int(self.diverged_at[place]) < 0]

    @property
    def judged(self) -> list[int]:
        """Those of `finished` that do more than choose a learning rate."""
        return [place for place in self.finished if not grid.chooses(self.pack.replicas[place], self.study)]

    def params_of(self, place: int) -> dict:
        """The weights of one replica, by its place in `pack.replicas`."""
        return jax.tree.map(lambda leaf: leaf[place], self.params)

    @property
    def kept(self) -> list[int]:
        """The steps of train.keep_checkpoints before this one whose checkpoints are there, in order."""
        there = checkpoint.steps_in(self.folder / "checkpoints" / f"pack_{self.pack.index}")
        return sorted({*there} & {step for step in self.study.train.keep_checkpoints if step < self.step})

    def at(self, step: int) -> "Restored":
        """The same pack after `step` steps, one of `kept`.

        Raises:
          InputError: its checkpoint is damaged; that of the pack's end, which counts, is another.
        """
        try:
            return restore(self.folder, self.pack.index, self.corpus, step)
        except checkpoint.CorruptCheckpoint as error:
            raise InputError(
                f"{error} It is one of train.keep_checkpoints; without its folder it is left out."
            ) from error

    def check(self, restored: np.ndarray, recorded: str, of: Callable[[dict], list[float]]) -> None:
        """Compares losses of the restored replicas with those that training recorded.

        Args:
          recorded: what they are, in words.
          of: them, of `trained`.

        Raises:
          NotReproduced: on the machine that trained it, any bit differs.
        """
        if self.trained is None or self.pack.environment != packs.environment(self.study):
            return
        wanted = of(self.trained)
        if not np.array_equal(restored, wanted, equal_nan=True):  # a diverged replica's loss may be no number
            raise NotReproduced(
                f"{self.cell}: the restored checkpoint gives {recorded} {restored.tolist()} nats and training ended "
                f"with {wanted}; they must agree in every bit, so a library computes otherwise than before: retrain in "
                f"another --workdir."
            )


def restore(
    cell: pathlib.Path, pack: int = 0, corpus: corpora.Corpus | None = None, step: int | None = None
) -> Restored:
    """A checkpoint of one pack of the cell at `cell` (a folder `WORKDIR/cells/NAME`).

    Args:
      corpus: the workdir's corpus if it is open already; read from WORKDIR/data otherwise.
      step: training steps done, one of train.keep_checkpoints; None for the newest.

    Raises:
      InputError: the corpus, or a language, is not the one trained on, or there is no checkpoint of `step`.
      checkpoint.CorruptCheckpoint: there is no checkpoint, or it does not read back as it was written.
    """
    cell = pathlib.Path(cell)
    folder = cell / "checkpoints" / f"pack_{pack}"
    steps = checkpoint.steps_in(folder)
    if not steps:
        raise checkpoint.CorruptCheckpoint(f"{folder} holds no checkpoint.")
    refuse(
        step not in (None, *steps)
        and f"{folder} holds no checkpoint of step {step}, but of {', '.join(map(str, sorted(steps)))}; a study keeps "
        "those of train.keep_checkpoints."
    )
    step = steps[0] if step is None else step
    description = checkpoint.describe(folder, step)
    trained, config = packs.from_json(description["pack"]), description["config"]
    if not trained.dose:
        corpus = corpus or corpora.open_corpus(cell.parent.parent / "data")
    fingerprint = feed.fingerprint(freeze(config), corpus)
    if fingerprint != description["data_fingerprint"]:
        raise InputError(
            f"{folder} was trained on data {description['data_fingerprint'][:12]}, and the workdir holds "
            f"{fingerprint[:12]}; restore the workdir's data folder."
        )
    place, count = jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), len(trained.replicas)
    one = jax.eval_shape(Transformer(trained.model).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    whole = {"params": one, "replicas": {"diverged_at": jax.ShapeDtypeStruct((), jnp.int32)}}
    add = lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype, sharding=place)  # noqa: E731
    items = checkpoint.restore(folder, step, jax.tree.map(add, whole))
    diverged_at = items["replicas"]["diverged_at"]
    return Restored(cell.name, trained, items["params"], diverged_at, step, config, corpus, folder=cell)
