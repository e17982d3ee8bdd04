"""Where cells run, and what happens to a study when one of them does not."""

import contextlib
import dataclasses
import traceback

import jax
import numpy as np

from train.config import InputError, StudyConfig
from train.data.corpora import Corpus
from train.files import write_table
from train.grid import Cell
from train.hosts import memory
from train.hosts.preemption import Notice
from train.run import loop, packs, sharding
from train.run.checkpoint import CorruptCheckpoint
from train.run.packs import Pack
from train.run.program import Program
from train.study import timing
from train.study.progress import StudyProgress
from train.workdir import CellFolder, Workdir, disk_is_full


@dataclasses.dataclass(frozen=True)
class Job:
    """What is done with one cell, `train` (see `train_cells`) or `evaluate`, or with several: `time`."""

    what: str
    cells: tuple[Cell, ...]
    evaluate: bool = False
    end: str = ""

    @property
    def name(self) -> str:
        return self.cells[0].name if len(self.cells) == 1 else "all cells"

    def run(self, study: "Study") -> None:
        if self.what == "time":
            _measure(study, self.cells)
            return
        (cell,) = self.cells
        if self.what == "train":
            train_cell(study, cell, self.evaluate, self.end)
        else:
            evaluate_cell(study, cell)


@dataclasses.dataclass
class Study:
    """What every part of a running study needs.

    Attributes:
      evaluation: what eval/ offers (train.study.order.Evaluation).
      workers: processes that cells run in (train.hosts.workers.Workers); None: they run in this one.
      programs: compiled programs by (cell name, pack index), kept for the timing pass.
    """

    config: StudyConfig
    workdir: Workdir
    corpus: Corpus
    evaluation: object
    stop: Notice
    progress: StudyProgress
    workers: object = None
    programs: dict = dataclasses.field(default_factory=dict)


def check(
    config: StudyConfig,
    workdir: Workdir,
    every_cell: tuple[Cell, ...],
    cells: tuple[Cell, ...],
    workers: int,
    corpus_tokens: int,
) -> None:
    """All that can be known before anything is compiled.

    Args:
      every_cell: the whole grid, none of whose cells may get another shape than it was trained with.
      cells: what is to train now.
      workers: processes that cells train in side by side; 0: one after another in this one.

    Raises:
      InputError: too few devices, an attention path that cannot serve a cell, a cell that was trained with another
        shape, or cells (all are named) whose estimated memory exceeds the limit, or that do not fit side by side.
    """
    sharding.make_mesh(config.mesh)
    for cell in every_cell:
        packs.check_shape(cell, workdir.cell(cell.name), config)
    allowed, sizes = memory.limit(config.train), packs.estimates(cells, config, corpus_tokens)
    too_large = [f"{name} {memory.gigabytes(needed)}" for name, needed in sizes.items() if needed > allowed]
    if too_large:
        raise InputError(
            f"estimated memory exceeds the {memory.gigabytes(allowed)} available, even for one replica at a time: "
            f"{', '.join(too_large)}; raise train.accumulate, set model.remat=block, lower train.batch_size or "
            f"data.seq_len, drop these cells with --cells, or raise train.memory_limit_gb."
        )
    largest = sorted(sizes, key=sizes.get, reverse=True)[:workers]
    together = sum(sizes[name] for name in largest)
    if jax.default_backend() == "cpu" and together > allowed:
        raise InputError(
            f"{', '.join(largest)} side by side need an estimated {memory.gigabytes(together)}, and "
            f"{memory.gigabytes(allowed)} are available; lower --workers, or use --launcher=here."
        )


def train_cells(study: Study, cells: tuple[Cell, ...], evaluate: bool, end: str = "done") -> None:
    """Trains, and if asked evaluates, every replica that is not done; a fault of one cell leaves the others alone.

    A cell's outcome, `end` where all went well, is in its status.json. A full disk ends the study, since nothing could
    be kept.
    """
    study.progress.expect(len(cells))
    lacking = [cell for cell in cells if study.workers and _lacks_something(study, cell, evaluate)]
    for cell in cells:
        if cell not in lacking:
            train_cell(study, cell, evaluate, end)
    if lacking:
        study.workers.run([Job("train", (cell,), evaluate, end) for cell in lacking], study.progress)


def train_cell(study: Study, cell: Cell, evaluate: bool, end: str) -> None:
    """What `train_cells` does with one cell; out of memory, it is tried once more with half its replicas at once."""
    folder = study.workdir.cell(cell.name)
    with faults_stay_in(study, cell.name):
        if not _memory_sufficed(study, cell, folder, evaluate):  # whose error, gone now, held what filled the memory
            study.progress.say("memory ran out; it starts again with half the replicas at once.")
            _train_packs(study, cell, folder, evaluate)
        folder.write_status(*_outcome(folder, end))


def _memory_sufficed(study: Study, cell: Cell, folder: CellFolder, evaluate: bool) -> bool:
    """Whether all packs are trained; if memory ran out, those that were not are cut in two."""
    try:
        _train_packs(study, cell, folder, evaluate)
    except Exception as error:
        # A full disk, too, is a resource exhausted to what writes checkpoints.
        if disk_is_full(error) or not (memory.ran_out(error) and packs.halve(folder)):
            raise
        study.programs = {key: program for key, program in study.programs.items() if key[0] != cell.name}
        return False
    return True


def _train_packs(study: Study, cell: Cell, folder: CellFolder, evaluate: bool) -> None:
    planned = packs.plan(cell, folder, study.config, len(study.corpus.tokens), study.progress.say)
    if not all(trained for _, trained in planned):
        folder.write_status("running")
    for pack, trained in planned:
        if not trained:
            _train_pack(study, cell, folder, pack)
        if evaluate and not folder.evaluated(pack.index):
            _evaluate_or_train_again(study, cell, folder, pack)


def evaluate_cells(study: Study, cells: tuple[Cell, ...]) -> None:
    """Evaluates the restored checkpoint of every trained cell once more."""
    study.progress.expect(len(cells))
    if study.workers:
        study.workers.run([Job("evaluate", (cell,)) for cell in cells], study.progress)
        return
    for cell in cells:
        evaluate_cell(study, cell)


def evaluate_cell(study: Study, cell: Cell) -> None:
    """What `evaluate_cells` does with one cell."""
    folder = study.workdir.cell(cell.name)
    with faults_stay_in(study, cell.name):
        records = folder.packs()
        for record in records:
            if record["trained"] is not None:
                _evaluate_or_forget(study, cell, folder, packs.from_json(record))
        if records and all(record["trained"] is not None for record in records):
            state = folder.status()["state"]
            folder.write_status(*_outcome(folder, state if state in ("tuned", "passed_over") else "done"))


def _measure(study: Study, cells: tuple[Cell, ...]) -> None:
    """Times the cells' steps; a fault costs the times alone, which the study's next start measures."""
    state, reason = "done", ""
    try:
        timing.measure(study, cells)
    except Exception as error:
        if disk_is_full(error):
            raise
        state, reason = "not measured", str(error) or type(error).__name__
    study.progress.end("step times", state, reason)


def time_cells(study: Study, cells: tuple[Cell, ...]) -> None:
    """Times the steps of every trained cell that has no timing.json, with nothing beside it."""
    cells = timing.lacking(study, cells)
    if not cells:
        return
    study.progress.expect(1)
    job = Job("time", cells)
    if study.workers:
        study.workers.run([job], study.progress)
    else:
        job.run(study)


def _lacks_something(study: Study, cell: Cell, evaluate: bool) -> bool:
    """Whether there is more to do for `cell` than to note its outcome."""
    folder = study.workdir.cell(cell.name)
    done = [packs.from_json(record) for record in folder.packs() if record["trained"] is not None]
    trained = {replica for pack in done for replica in pack.replicas}
    return (
        len(done) < len(folder.packs())
        or not trained.issuperset(cell.replicas)
        or evaluate
        and not all(folder.evaluated(pack.index) for pack in done)
    )


@contextlib.contextmanager
def faults_stay_in(study: Study, name: str):
    """Within, a fault is written to the status of the cell `name` and goes no further; a full disk does."""
    folder = study.workdir.cell(name)
    try:
        yield
    except Exception as error:
        if disk_is_full(error):
            raise
        out_of_memory = memory.ran_out(error)
        folder.write_status("out_of_memory" if out_of_memory else "failed", str(error) or type(error).__name__)
        if not out_of_memory:
            (folder.path / "error.txt").write_text(traceback.format_exc())
    study.progress.end(name, *folder.status().values())


def _train_pack(study: Study, cell: Cell, folder: CellFolder, pack: Pack) -> None:
    """Trains one pack and records its tune losses as they were in memory at the end."""
    folder.documents(pack.index).unlink(missing_ok=True)
    study.progress.begin(cell.name, f"compiling {len(pack.replicas)} replicas, {pack.model.attention} attention")
    before = [program for (name, _), program in study.programs.items() if name == cell.name]
    program = study.stop.wait_for(lambda: Program(pack, study.config, study.corpus, before))
    study.programs[cell.name, pack.index] = program
    state = loop.train(program, folder, study.config, study.corpus.fingerprint, study.stop, study.progress)
    study.progress.begin(cell.name, "measuring the final loss")
    params = jax.device_put(state.params, jax.local_devices()[0])  # as a restored pack's are: one compiled evaluation
    losses = study.stop.wait_for(
        lambda: study.evaluation.document_losses(pack, params, study.corpus, "tune", study.config.eval)
    )
    outcome = {
        "step": study.config.train.steps,
        "tune_losses": losses.sum(axis=1).tolist(),
        "diverged_at": np.asarray(jax.device_get(state.diverged_at)).tolist(),
        "compile_seconds": round(program.compile_seconds, 2),
        "memory_bytes": program.bytes,
    }
    packs.mark_trained(folder, pack, outcome)


def _evaluate_or_train_again(study: Study, cell: Cell, folder: CellFolder, pack: Pack) -> None:
    """Evaluates the restored pack; where its last checkpoint is lost, trains from the one before to the end."""
    try:
        _evaluate(study, cell, folder, pack)
    except CorruptCheckpoint as error:
        study.progress.say(f"{error} Training it again from the checkpoint before, if there is one.")
        packs.mark_trained(folder, pack, None)
        _train_pack(study, cell, folder, pack)
        _evaluate(study, cell, folder, pack)


def _evaluate_or_forget(study: Study, cell: Cell, folder: CellFolder, pack: Pack) -> None:
    """Evaluates the restored pack; where its last checkpoint is lost, no longer counts it as trained."""
    try:
        _evaluate(study, cell, folder, pack)
    except CorruptCheckpoint as error:
        packs.mark_trained(folder, pack, None)
        raise CorruptCheckpoint(
            f"{error} The command with --mode=study trains this cell again, from the checkpoint before if there is one."
        ) from error


def _evaluate(study: Study, cell: Cell, folder: CellFolder, pack: Pack) -> None:
    study.progress.begin(cell.name, "evaluating the restored checkpoint")
    record = folder.packs()[pack.index]
    table = study.stop.wait_for(
        lambda: study.evaluation.evaluate_pack(folder, pack.index, record["trained"], study.config, study.corpus)
    )
    write_table(folder.documents(pack.index), table)


def _outcome(folder: CellFolder, end: str) -> tuple[str, str]:
    stopped = [step for record in folder.packs() for step in record["trained"]["diverged_at"]]
    if all(step >= 0 for step in stopped):
        return "diverged", f"all {len(stopped)} replicas diverged, the first at step {min(stopped)}"
    return end, ""
