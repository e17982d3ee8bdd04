"""Train runs side by side until the relational loss of each is low: T, the steps that it needs (claim C4).

Every run reads the language of its own seed, which also chooses its row of the Latin square; no document comes twice.
"""

import dataclasses
import functools
import json
import math
import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mha.transformer import ModelConfig
from train.config import StudyConfig
from train.data.relations import language
from train.data.relations.language import Documents, Language
from train.data.relations.parse import spoken
from train.grid import Replica
from train.hosts.preemption import Notice, Preempted
from train.run import checkpoint, loop, metrics, starts, step
from train.study import dose_rates

CHUNK = 10  # steps of a dispatch, so that a signal is answered soon
SAVE_SECONDS = 30.0  # between two checkpoints
NO_ATTENTION_STEPS = 1_000  # without attention there is little to learn: the query's own bits
REACHED, CAPPED, HOPELESS, DIVERGED = "reached", "capped", "hopeless", "diverged"


@dataclasses.dataclass(frozen=True)
class Runs:
    """What trains side by side.

    Attributes:
      model: the shape, its attention path resolved.
      dose: how many relations are switched on.
      split: `tune` or `test`: the documents of each seed's language that looks are taken on.
      known: by rate, T of tuning runs that are done; with `compete` a rate that can no longer be the best stops.
      start: what the weights are before step 0 (starts); some starts train to the cap, whatever the looks say.
    """

    model: ModelConfig
    dose: int
    split: str
    replicas: tuple[Replica, ...]
    compete: bool = False
    known: tuple[tuple[float, tuple[int, ...]], ...] = ()
    start: str = starts.DRAWN

    def cap(self, config: StudyConfig) -> int:
        """Steps at most, whole looks."""
        every = config.dose.look_every
        most = -(-NO_ATTENTION_STEPS // every) * every if self.start == starts.NO_ATTENTION else config.train.steps
        return min(config.train.steps, most)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: `steps` is T (REACHED), the cap, or where it was stopped; `loss` its relational loss there."""

    replica: Replica
    steps: int
    why: str
    loss: float


def looked_at(config: StudyConfig, dose: int, split: str, seed: int) -> Documents:
    """The documents that a seed's looks of `split` are taken on; training never reads them."""
    first = {"tune": 0, "test": config.dose.documents}[split]
    found = spoken(config.data, dose, seed)
    return language.documents(found, seed, first, first + config.dose.documents)


class Program:
    """Trains up to `rows` runs of a model, CHUNK steps at a time."""

    def __init__(self, model: ModelConfig, config: StudyConfig, rows: int):
        self.model, self.rows, self._config = model, rows, config
        self.batch_size, self.length = config.train.batch_size, config.data.document_tokens
        self._run = jax.jit(functools.partial(step.run, model, config.train, "scan", language.BOS), donate_argnums=0)

    def init(self, seeds: list[int], start: str = starts.DRAWN, languages: Sequence[Language] = ()) -> step.State:
        """The state of every row before step 0; rows beyond the seeds repeat the last.

        Args:
          languages: of each seed, where its start is not drawn alone.
        """
        padded = [*seeds, *[seeds[-1]] * (self.rows - len(seeds))]
        state = step.init(self.model, self._config.train, jnp.asarray(padded, jnp.uint32))
        if start == starts.DRAWN:
            return state
        drawn = jax.device_get(state.params)
        spoken = [*languages, *[languages[-1]] * (self.rows - len(languages))]
        rows = [starts.params(start, self.model, one, _row(drawn, row)) for row, one in enumerate(spoken)]
        return state._replace(params=jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *rows))

    def run(self, state, tokens: list[np.ndarray], rates: list[float], first: int, count: int):
        """Trains the first len(tokens) rows for `count` <= CHUNK steps; the others stay as they are.

        Args:
          tokens: of each row the documents of these steps, uint16 (count * batch_size, length).
        """
        a_row = CHUNK * self.batch_size * self.length
        text = np.zeros(self.rows * a_row + 1, np.uint16)
        for row, documents in enumerate(tokens):
            text[row * a_row : row * a_row + documents.size] = documents.ravel()
        starts = np.arange(self.rows * CHUNK * self.batch_size, dtype=np.int32) * np.int32(self.length)
        starts = starts.reshape(self.rows, CHUNK, self.batch_size)
        numbers = np.int32(first), np.int32(count), np.int32(len(tokens))
        return self._run(state, text, starts, np.resize(np.float32(rates), self.rows), *numbers)


def train(
    program: Program, runs: Runs, folder: pathlib.Path, config: StudyConfig, look: Callable, stop: Notice, progress
) -> list[Outcome]:
    """The outcome of every run, in order; looks.jsonl in `folder` has the losses at every look.

    A run that has ended leaves the others alone: whatever trains beside it, a run has the same bits.

    Args:
      look: (model, params, answer bits, texts) -> relational losses, together and apart (answers.excess_of).

    Raises:
      Preempted: asked to stop; a checkpoint of the last step done is on disk.
    """
    cap, every = runs.cap(config), config.dose.look_every
    texts = [looked_at(config, runs.dose, runs.split, replica.data_seed) for replica in runs.replicas]
    languages = [spoken(config.data, runs.dose, replica.data_seed) for replica in runs.replicas]
    bits = np.full((runs.model.vocab_size, languages[0].vocabulary.answer_bits.shape[1]), -1, np.int8)
    bits[: len(languages[0].vocabulary)] = languages[0].vocabulary.answer_bits
    store, path = folder / "checkpoints", folder / "looks.jsonl"
    seeds = [replica.init_seed for replica in runs.replicas]
    begin = functools.partial(program.init, seeds, runs.start, languages)
    abstract = jax.eval_shape(lambda: program.init(seeds))
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract)
    found = checkpoint.restore_newest(store, loop.items_of(abstract), progress.say)
    now, state = (found[0], loop.state_of(found[1])) if found else (0, stop.wait_for(begin))
    looks = [line for line in metrics.read(path) if line["step"] <= now]
    _rewrite(path, looks)
    ended = _ended(runs, looks, config)
    saved, compiled = time.monotonic(), False
    with checkpoint.Saver(store) as saver, open(path, "a") as file:
        while now < cap and len(ended) < len(runs.replicas):
            order = [row for row in range(len(runs.replicas)) if row not in ended]
            places = np.array([*order, *(row for row in range(program.rows) if row not in order)])
            count = min(CHUNK, every - now % every)
            unread = 2 * config.dose.documents + now * program.batch_size
            drawn = [
                _documents(languages[row], runs.replicas[row].data_seed, unread, count * program.batch_size)
                for row in order
            ]
            rates = [runs.replicas[row].learning_rate for row in order]
            advance = functools.partial(program.run, _rows(state, places), drawn, rates, now, count)
            state, losses = advance() if compiled else stop.wait_for(advance)
            compiled, now = True, now + count
            if now % every == 0:
                together, apart = look(runs.model, state.params, bits, [texts[row] for row in order])
                for row, loss, own in zip(order, together, apart, strict=True):
                    names = dict(zip(languages[row].relations, map(_number, own), strict=True))
                    line = {"step": now, "replica": runs.replicas[row].name, "loss": _number(loss), "relations": names}
                    looks.append(line)
                    file.write(json.dumps(line) + "\n")
                file.flush()
                ended = _ended(runs, looks, config)
                progress.steps(now, jax.device_get(losses["loss"])[: len(order), count - 1])
            state = _rows(state, np.argsort(places))
            finished = now == cap or len(ended) == len(runs.replicas)
            if stop.requested or finished or time.monotonic() - saved > SAVE_SECONDS:
                saver.save(now, loop.items_of(state), {"step": now})
                saved = time.monotonic()
            if stop.requested and not finished:
                raise Preempted
    return [ended.get(row) or _capped(runs, row, looks, cap) for row in range(len(runs.replicas))]


def _ended(runs: Runs, looks: list[dict], config: StudyConfig) -> dict[int, Outcome]:
    """The runs that need no more steps, by row: a function of the looks alone, taken in order."""
    ended: dict[int, Outcome] = {}
    rows = {replica.name: row for row, replica in enumerate(runs.replicas)}
    for now in sorted({line["step"] for line in looks}):
        for line in (line for line in looks if line["step"] == now):
            row, loss = rows[line["replica"]], line["loss"]
            replica = runs.replicas[row]
            if loss is None:
                ended[row] = Outcome(replica, runs.cap(config), DIVERGED, math.log(2))
            elif loss <= config.dose.threshold and runs.start not in starts.TO_THE_CAP:
                ended[row] = Outcome(replica, now, REACHED, loss)
        if runs.compete:
            taken = {rate: list(steps) for rate, steps in runs.known}
            for row, replica in enumerate(runs.replicas):
                steps = ended[row].steps if row in ended else None
                taken.setdefault(replica.learning_rate, []).append(steps)
            for line in (line for line in looks if line["step"] == now):
                row = rows[line["replica"]]
                replica = runs.replicas[row]
                if row not in ended and dose_rates.hopeless(now, taken, replica.learning_rate):
                    ended[row] = Outcome(replica, now, HOPELESS, line["loss"])
    return ended


def _capped(runs: Runs, row: int, looks: list[dict], cap: int) -> Outcome:
    mine = [line for line in looks if line["replica"] == runs.replicas[row].name]
    return Outcome(runs.replicas[row], cap, CAPPED, mine[-1]["loss"])


def _documents(spoken: Language, seed: int, first: int, count: int) -> np.ndarray:
    """Tokens (count, length) of documents from `first` on."""
    index = np.arange(first, first + count)
    blocks = {int(block): _block(spoken, seed, int(block)) for block in np.unique(index // language.BLOCK)}
    return np.stack([blocks[one // language.BLOCK][one % language.BLOCK] for one in index.tolist()])


@functools.lru_cache(maxsize=32)  # the next steps read on in the same block
def _block(spoken: Language, seed: int, index: int) -> np.ndarray:
    return language.block(spoken, seed, index).tokens


@jax.jit
def _rows(tree, order: jax.Array):
    return jax.tree.map(lambda leaf: leaf[order], tree)


def _row(tree, row: int):
    return jax.tree.map(lambda leaf: leaf[row], tree)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _rewrite(path: pathlib.Path, lines: list[dict]) -> None:
    """`path` with `lines` alone: a crash may have left more than the checkpoint knows of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text("".join(json.dumps(line) + "\n" for line in lines))
    draft.replace(path)
