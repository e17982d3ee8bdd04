"""Where cells run, and what happens to a study when one of them does not."""

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np

from train import grid
from train.config import InputError, StudyConfig
from train.data.corpora import Corpus
from train.files import write_text
from train.grid import Cell
from train.hosts import memory
from train.hosts.job import Job
from train.hosts.preemption import Notice
from train.losses.documents import document_losses
from train.progress import StudyProgress
from train.run import checkpoint, feed, loop, packs, sharding, stops
from train.run.packs import Pack
from train.run.program import Program
from train.workdir import CellFolder, Workdir, disk_is_full


@dataclasses.dataclass
class Study:
    """What every part of a running study needs.

    Attributes:
      corpus: None where every seed speaks a language of its own.
      jobs: what a worker, or this process, can do, by name.
      workers: processes that cells run in (train.hosts.workers.Workers); None: they run in this one.
      programs: compiled programs by (cell name, pack index), kept for the packs that follow and the timing pass.
    """

    config: StudyConfig
    workdir: Workdir
    corpus: Corpus | None
    jobs: Mapping[str, Callable[["Study", Job], None]]
    stop: Notice
    progress: StudyProgress
    workers: object = None
    programs: dict = dataclasses.field(default_factory=dict)

    @property
    def corpus_tokens(self) -> int:
        return 0 if self.corpus is None else len(self.corpus.tokens)

    def run(self, jobs: Iterable[Job]) -> None:
        """All of them, in the workers if there are any."""
        jobs = list(jobs)
        self.progress.expect(len(jobs))
        if self.workers and jobs:
            self.workers.run(jobs, self.progress)
        else:
            for job in jobs:
                self.jobs[job.what](self, job)


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


def train_cells(study: Study, cells: Iterable[Cell], end: str = "done") -> None:
    """Trains every replica that is not done; a fault of one cell leaves the others alone.

    A cell's outcome, `end` where all went well, is in its status.json. A full disk ends the study, since nothing could
    be kept.
    """
    done = [cell for cell in cells if not lacks_runs(study.workdir, cell)]
    for cell in done:
        study.workdir.cell(cell.name).write_status(*outcome(study.workdir.cell(cell.name), end))
    study.run(Job("train", (cell,), (end,)) for cell in cells if cell not in done)


def train(study: Study, job: Job) -> None:
    """The job `train`: what `train_cells` does with one cell."""
    (cell,), (end,) = job.cells, job.words
    with faults_stay_in(study, cell.name):
        train_packs(study, cell, end)


def train_packs(study: Study, cell: Cell, end: str) -> None:
    """Trains what a cell lacks; out of memory, it is tried once more with half its replicas at once."""
    folder = study.workdir.cell(cell.name)
    if not _memory_sufficed(study, cell, folder):  # whose error, gone now, held what filled the memory
        study.progress.say("memory ran out; it starts again with half the replicas at once.")
        _train_packs(study, cell, folder)
    folder.write_status(*outcome(folder, end))


def _memory_sufficed(study: Study, cell: Cell, folder: CellFolder) -> bool:
    """Whether all packs are trained; if memory ran out, those that were not are cut in two."""
    try:
        _train_packs(study, cell, folder)
    except Exception as error:
        # A full disk, too, is a resource exhausted to what writes checkpoints.
        if disk_is_full(error) or not (memory.ran_out(error) and packs.halve(folder)):
            raise
        study.programs = {key: program for key, program in study.programs.items() if key[0] != cell.name}
        return False
    return True


def _train_packs(study: Study, cell: Cell, folder: CellFolder) -> None:
    planned = packs.plan(cell, folder, study.config, study.corpus_tokens, study.progress.say)
    if not all(trained for _, trained in planned):
        folder.write_status("running")
    for pack, trained in planned:
        if not trained:
            _train_pack(study, cell, folder, pack)


def lacks_runs(workdir: Workdir, cell: Cell) -> bool:
    """Whether `cell` has replicas, or a pack, that are not trained."""
    records = workdir.cell(cell.name).packs()
    trained = {
        replica for record in records if record["trained"] is not None for replica in packs.from_json(record).replicas
    }
    return not trained.issuperset(cell.replicas) or any(record["trained"] is None for record in records)


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
            write_text(folder.path / "error.txt", traceback.format_exc())
    study.progress.end(name, *folder.status().values())


def _train_pack(study: Study, cell: Cell, folder: CellFolder, pack: Pack) -> None:
    """Trains one pack and records what it ended with, as it was in memory: its tune losses, or how its runs ended."""
    config, source = study.config, feed.of(study.config, study.corpus, cell.dose)
    study.progress.begin(cell.name, f"compiling {len(pack.replicas)} replicas, {pack.model.attention} attention")
    before = list(study.programs.values())
    program = study.stop.wait_for(lambda: Program(pack, config, source, before))
    study.programs[cell.name, pack.index] = program
    rule = stops.rule_for(pack, config, tuned_steps(folder, config, pack))
    ended = loop.train(
        program, folder, config, feed.fingerprint(config, study.corpus), rule, study.stop, study.progress
    )
    trained = {"step": ended.step, "checkpoint": checkpoint.digest(folder.checkpoints(pack.index), ended.step)}
    if study.corpus is None:
        trained["outcomes"] = [dataclasses.asdict(one) for one in ended.outcomes]
    else:
        study.progress.begin(cell.name, "measuring the final loss")
        # As a restored pack's are, so that evaluation is compiled once.
        params = jax.device_put(ended.state.params, jax.local_devices()[0])
        losses = study.stop.wait_for(
            lambda: document_losses(pack.model, pack.replica_map, params, study.corpus, "tune", config.eval)
        )
        trained["tune_losses"] = losses.sum(axis=1).tolist()
    trained |= {
        "diverged_at": np.asarray(jax.device_get(ended.state.diverged_at)).tolist(),
        "compile_seconds": round(program.compile_seconds, 2),
        "memory_bytes": program.bytes,
    }
    packs.mark_trained(folder, pack, trained)


def tuned_steps(folder: CellFolder, config: StudyConfig, pack: Pack) -> dict[float, list[int]]:
    """By rate, T of each tuning run of the packs before `pack` in a study of doses: what it competes with when it
    trains first, and so when it trains again as well."""
    steps: dict[float, list[int]] = {}
    for record in folder.packs()[: pack.index]:
        outcomes = record["trained"]["outcomes"] if record["trained"] and record["dose"] else ()
        for replica, ended in zip(packs.from_json(record).replicas, outcomes, strict=bool(outcomes)):
            if grid.chooses(replica, config):
                steps.setdefault(replica.learning_rate, []).append(ended["steps"])
    return steps


def outcome(folder: CellFolder, end: str) -> tuple[str, str]:
    """State and reason of a cell whose packs are all trained."""
    stopped = [step for record in folder.packs() for step in record["trained"]["diverged_at"]]
    if all(step >= 0 for step in stopped):
        return "diverged", f"all {len(stopped)} replicas diverged, the first at step {min(stopped)}"
    return end, ""
