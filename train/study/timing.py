"""Step times, measured with nothing beside them, in a process like those that trained the cells."""

import statistics
from time import perf_counter

import jax

from train.files import write_json
from train.grid import Cell
from train.hosts import slots
from train.hosts.workers import Job
from train.run import feed, packs
from train.run.program import Program
from train.run.step import State
from train.study.launch import Study
from train.workdir import TIMING, disk_is_full, read_measured

ROUNDS = 3
SECONDS = 0.15  # aimed at for one measurement


def time_cells(study: Study, cells: tuple[Cell, ...]) -> list[str]:
    """Times the steps of every trained cell that has no timing.json, with nothing beside it; returns those that still
    have none."""
    missing = lacking(study, cells)
    study.run([Job("time", missing)] if missing else [])
    return [cell.name for cell in lacking(study, cells)]


def time(study: Study, job: Job) -> None:
    """The job `time`: a fault costs the times alone, which the study's next start measures."""
    state, reason = "done", ""
    try:
        measure(study, job.cells)
    except Exception as error:
        if disk_is_full(error):
            raise
        state, reason = "not measured", str(error) or type(error).__name__
    study.progress.end("step times", state, reason)


def lacking(study: Study, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """The trained cells without a timing.json from a process of as many cores as cells are timed in now."""
    threads = slots.threads_in_slot(jax.default_backend()) if study.workers else slots.threads()

    def untimed(cell: Cell) -> bool:
        folder = study.workdir.cell(cell.name)
        trained = [trained for _, trained in packs.read(folder)[:1] if trained is not None]
        return bool(trained) and read_measured(folder.timing, TIMING).get("threads") != threads

    return tuple(cell for cell in cells if untimed(cell))


def measure(study: Study, cells: tuple[Cell, ...]) -> None:
    """Writes timing.json of each of `cells`, all trained: the median step time of one replica over ROUNDS, the cells
    taken in turn so that a machine's drift meets all of them.

    Args:
      study: what it has compiled is not compiled again.
    """
    programs, states = {}, {}
    for cell in cells:
        study.progress.begin(cell.name, "preparing the timing pass")
        pack, _ = packs.read(study.workdir.cell(cell.name))[0]
        program = study.programs.get((cell.name, 0))
        program = program or study.stop.wait_for(
            lambda p=pack: Program(p, study.config, feed.of(study.config, study.corpus, p.dose))
        )
        programs[cell.name] = program
        # On the host, since the states of all cells together may not fit the device.
        states[cell.name] = study.stop.wait_for(lambda p=program: jax.device_get(p.init()))
    study.progress.begin("all cells", "timing steps, one cell at a time")
    counts, taken = dict.fromkeys(programs, 1), {name: [] for name in programs}
    for round_ in range(-1, ROUNDS + 1):  # the first dispatch of a program is not like the others
        for name, program in programs.items():
            study.stop.check()
            state = jax.tree.map(
                lambda leaf, like: jax.device_put(leaf, like.sharding), states[name], program.abstract_state
            )
            seconds, _ = seconds_a_step(program, state, counts[name])
            if round_ <= 0:
                counts[name] = max(1, min(16, round(SECONDS / seconds)))
            else:
                taken[name].append(seconds / len(program.pack.replicas))
    tokens = study.config.train.batch_size * study.config.data.seq_len
    for name, program in programs.items():
        seconds = statistics.median(taken[name])
        timing = {"step_ms": 1e3 * seconds, "tokens_per_second": tokens / seconds, "peak_memory_bytes": program.bytes}
        timing |= {"replicas_per_program": len(program.pack.replicas), "rounds": ROUNDS, "threads": slots.threads()}
        write_json(study.workdir.cell(name).timing, timing)


def seconds_a_step(program: Program, state: State, count: int) -> tuple[float, State]:
    """Of a dispatch of `count` steps, all replicas of the program together, waited for; and the state after it."""
    jax.block_until_ready(state)
    began = perf_counter()
    state, metrics = program.run(state, 0, count)
    jax.block_until_ready(metrics)
    return (perf_counter() - began) / count, state
