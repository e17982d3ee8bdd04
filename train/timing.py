"""Step times, measured in a pass of their own with nothing beside it."""

import statistics
import time

import jax

from train.grid import Cell
from train.launch import Study
from train.packs import from_json
from train.program import Program
from train.workdir import TIMING, read_measured, write_json

ROUNDS = 3
SECONDS = 0.4  # aimed at for one measurement


def measure(study: Study, cells: tuple[Cell, ...]) -> None:
    """Writes timing.json of each trained cell that has none: the median step time of one replica over ROUNDS, the cells
    taken in turn so that a machine's drift meets all of them."""
    programs, states = {}, {}
    for cell in cells:
        folder = study.workdir.cell(cell.name)
        records = folder.packs()
        if read_measured(folder.timing, TIMING) or not records or records[0]["trained"] is None:
            continue
        study.progress.begin(cell.name, "preparing the timing pass")
        pack = from_json(records[0])
        program = study.programs.get((cell.name, 0))
        program = program or study.stop.wait_for(lambda p=pack: Program(p, study.config, study.corpus))
        programs[cell.name] = program
        # On the host, since the states of all cells together may not fit the device.
        states[cell.name] = study.stop.wait_for(lambda p=program: jax.device_get(p.init()))
    if not programs:
        return
    study.progress.begin("all cells", "timing steps, one cell at a time")
    counts = dict.fromkeys(programs, 1)
    taken = {name: [] for name in programs}
    for round_ in range(-1, ROUNDS + 1):  # the first dispatch of a program is not like the others
        for name, program in programs.items():
            study.stop.check()
            state = jax.tree.map(
                lambda leaf, like: jax.device_put(leaf, like.sharding), states[name], program.abstract_state
            )
            jax.block_until_ready(state)
            began = time.perf_counter()
            state, metrics = program.run(state, 0, counts[name])
            jax.block_until_ready(metrics)
            seconds = (time.perf_counter() - began) / counts[name] / len(program.pack.replicas)
            if round_ <= 0:
                counts[name] = max(1, min(16, round(SECONDS / (seconds * len(program.pack.replicas)))))
            else:
                taken[name].append(seconds)
    for name, program in programs.items():
        step_seconds = statistics.median(taken[name])
        tokens = program.batch_size * program.seq_len
        timing = {
            "step_ms": 1e3 * step_seconds,
            "tokens_per_second": tokens / step_seconds,
            "peak_memory_bytes": program.bytes,
            "replicas_per_program": len(program.pack.replicas),
            "rounds": ROUNDS,
        }
        write_json(study.workdir.cell(name).timing, timing)
