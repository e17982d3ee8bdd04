"""Where cells run, and what happens to a study when one of them does not."""

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np

from train import grid
from train.config import StudyConfig, freeze, refuse
from train.data import corpora, sources
from train.files import write_text
from train.hosts import compile_cache, memory
from train.hosts.preemption import Notice
from train.hosts.workers import Job
from train.losses.documents import document_losses
from train.progress import StudyProgress
from train.run import checkpoint, feed, loop, packs, sharding, stops
from train.run.program import Program
from train.study import recovery
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
    corpus: corpora.Corpus | None
    jobs: Mapping[str, Callable[["Study", Job], None]]
    stop: Notice
    progress: StudyProgress
    workers: object = None
    programs: dict = dataclasses.field(default_factory=dict)

    def run(self, jobs: Iterable[Job]) -> None:
        """All of them, in the workers if there are any."""
        jobs = list(jobs)
        self.progress.expect(len(jobs))
        if self.workers and jobs:
            self.workers.run(jobs, self.progress)
        else:
            for job in jobs:
                self.jobs[job.what](self, job)


def reopened(workdir: Workdir) -> tuple[StudyConfig, corpora.Corpus | None, dict[str, grid.Cell]]:
    """Config, corpus and cells by name of the study that has begun in `workdir`, for a process beside its own, whose
    JAX is set up alike."""
    config = freeze(workdir.record()["config"])
    jax.config.update("jax_enable_x64", config.model.dtype == "float64")
    compile_cache.use(lambda text: None)
    corpus = None if config.dose.relations else corpora.open_corpus(workdir.data)
    return config, corpus, {cell.name: cell for cell in grid.cells_of(config, sources.vocab_size(config.data))}


def check(
    config: StudyConfig,
    workdir: Workdir,
    every_cell: tuple[grid.Cell, ...],
    cells: tuple[grid.Cell, ...],
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
    largest = sorted(sizes, key=sizes.get, reverse=True)[:workers]
    together = sum(sizes[name] for name in largest)
    refuse(
        too_large
        and f"estimated memory exceeds the {memory.gigabytes(allowed)} available, even for one replica at a time: "
        f"{', '.join(too_large)}; raise train.accumulate, set model.remat=block, lower train.batch_size or "
        f"data.seq_len, drop these cells with --cells, or raise train.memory_limit_gb.",
        jax.default_backend() == "cpu"
        and together > allowed
        and f"{', '.join(largest)} side by side need an estimated {memory.gigabytes(together)}, and "
        f"{memory.gigabytes(allowed)} are available; lower --workers, or use --launcher=here.",
    )


def train_cells(study: Study, cells: Iterable[grid.Cell], end: str = "done") -> None:
    """Trains every replica that is not done; a fault of one cell leaves the others alone.

    A cell's outcome, `end` where all went well, is in its status.json. A full disk ends the study, since nothing could
    be kept.
    """
    lacking = [cell for cell in cells if lacks_runs(study.workdir, cell)]
    for folder in (study.workdir.cell(cell.name) for cell in cells if cell not in lacking):
        folder.write_status(*outcome(folder, end))
    study.run(Job("train", (cell,), (end,)) for cell in lacking)


def train_one(study: Study, job: Job) -> None:
    """The job `train`: what `train_cells` does with one cell."""
    (cell,), (end,) = job.cells, job.words
    with faults_stay_in(study, cell.name):
        train_packs(study, cell, end)


def train_packs(study: Study, cell: grid.Cell, end: str) -> None:
    """Trains what a cell lacks; out of memory, it is tried once more with half its replicas at once."""
    folder, tokens = study.workdir.cell(cell.name), 0 if study.corpus is None else len(study.corpus.tokens)
    for first in (True, False):
        try:
            planned = packs.plan(cell, folder, study.config, tokens, study.progress.say)
            lacking = [pack for pack, trained in planned if not trained]
            if lacking:
                folder.write_status("running")
            for pack in lacking:
                _train_pack(study, cell, folder, pack)
            break
        except Exception as error:  # which holds what filled the memory, and is gone when the packs are tried again
            # A full disk, too, is a resource exhausted to what writes checkpoints.
            if not first or disk_is_full(error) or not (memory.ran_out(error) and packs.halve(folder)):
                raise
            study.programs = {key: program for key, program in study.programs.items() if key[0] != cell.name}
            study.progress.say("memory ran out; it starts again with half the replicas at once.")
    folder.write_status(*outcome(folder, end))


def lacks_runs(workdir: Workdir, cell: grid.Cell) -> bool:
    """Whether `cell` has replicas, or a pack, that are not trained."""
    known = packs.read(workdir.cell(cell.name))
    trained = {replica for pack, ended in known if ended for replica in pack.replicas}
    return not trained.issuperset(cell.replicas) or any(ended is None for _, ended in known)


@contextlib.contextmanager
def faults_stay_in(study: Study, name: str):
    """Within, a fault is written to the status of the cell `name` and goes no further; a full disk does."""
    folder = study.workdir.cell(name)
    try:
        yield
        (folder.path / "error.txt").unlink(missing_ok=True)
    except Exception as error:
        if disk_is_full(error):
            raise
        out_of_memory = memory.ran_out(error)
        folder.write_status("out_of_memory" if out_of_memory else "failed", str(error) or type(error).__name__)
        if not out_of_memory:
            write_text(folder.path / "error.txt", traceback.format_exc())
    study.progress.end(name, *folder.status().values())


def _train_pack(study: Study, cell: grid.Cell, folder: CellFolder, pack: packs.Pack) -> None:
    """Trains one pack and records what it ended with, as it was in memory: its tune losses, or how its runs ended."""
    config, source = study.config, feed.of(study.config, study.corpus, cell.dose)
    study.progress.begin(cell.name, f"compiling {len(pack.replicas)} replicas, {pack.model.attention} attention")
    begin, own = recovery.beginning(folder, pack), recovery.config_of(config, pack)
    further = recovery.goes_on(pack.replicas[0])
    rate, steps_before = (config.pruning.recovery_rate, config.train.steps) if further else (1.0, 0)
    before = list(study.programs.values())
    program = study.stop.wait_for(lambda: Program(pack, own, source, before, begin, rate, steps_before))
    study.programs[cell.name, pack.index] = program
    rule = stops.rule_for(pack, own, tuned_steps(folder, config, pack))
    read = feed.fingerprint(config, study.corpus)
    ended = loop.train(program, folder, own, read, rule, study.stop, study.progress)
    trained = {"step": ended.step, "checkpoint": checkpoint.digest(folder.checkpoints(pack.index), ended.step)}
    if study.corpus is None:
        trained["outcomes"] = [dataclasses.asdict(one) for one in ended.outcomes]
    else:
        study.progress.begin(cell.name, "measuring the final loss")
        # As a restored pack's are, so that evaluation is compiled once.
        params = jax.device_put(ended.state.params, jax.local_devices()[0])
        asked = (pack.model, pack.replica_map, params, study.corpus, "tune", config.eval)
        trained["tune_losses"] = study.stop.wait_for(lambda: document_losses(*asked)).sum(axis=1).tolist()
    trained["diverged_at"] = np.asarray(jax.device_get(ended.state.diverged_at)).tolist()
    trained |= {"compile_seconds": round(program.compile_seconds, 2), "memory_bytes": program.bytes}
    packs.mark_trained(folder, pack, trained)


def tuned_steps(folder: CellFolder, config: StudyConfig, pack: packs.Pack) -> dict[float, list[int]]:
    """By rate, T of each tuning run of the packs before `pack` in a study of doses: what it competes with when it
    trains first, and so when it trains again as well."""
    steps: dict[float, list[int]] = {}
    for other, trained in packs.read(folder)[: pack.index]:
        for replica, ended in zip(other.replicas, trained["outcomes"], strict=True) if trained and other.dose else ():
            if grid.chooses(replica, config):
                steps.setdefault(replica.learning_rate, []).append(ended["steps"])
    return steps


def outcome(folder: CellFolder, end: str) -> tuple[str, str]:
    """State and reason of a cell whose packs are all trained."""
    stopped = [step for record in folder.packs() for step in record["trained"]["diverged_at"]]
    if all(step >= 0 for step in stopped):
        return "diverged", f"all {len(stopped)} replicas diverged, the first at step {min(stopped)}"
    return end, ""
