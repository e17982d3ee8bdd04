"""What is done in one go with some cells of a study, in this process or in one of a pool of workers, one a slot, that
cells are given to, longest first."""

import collections
import contextlib
import dataclasses
import errno
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping

import jax

from mha import budget
from train.grid import Cell, Replica
from train.hosts import slots
from train.hosts.preemption import Notice, Preempted
from train.progress import Line, StudyProgress
from train.run import packs
from train.workdir import Workdir

# An exp, with what goes along, takes as long as so many FLOPs of a matmul, by d_k, which decides the attention path:
# between 7, 17 and 27 at T = 256 (docs/benchmarks/attention_one_core.md) and 10, 44 and 105 at T = 64.
FLOPS_PER_EXP = {1: 10, 2: 30}
FLOPS_PER_EXP_ELSE = 60
SECONDS_TO_STOP = 15.0  # of a worker that was asked to


@dataclasses.dataclass(frozen=True)
class Job:
    """Named by what a study's jobs call it (train.study.launch.Study).

    Attributes:
      words: what else it is told.
    """

    what: str
    cells: tuple[Cell, ...]
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.cells[0].name if len(self.cells) == 1 else "all cells"

    def as_json(self) -> dict:
        replicas = [(cell.name, [dataclasses.asdict(replica) for replica in cell.replicas]) for cell in self.cells]
        return {"what": self.what, "cells": replicas, "words": self.words}


def job_of(value: dict, cells: Mapping[str, Cell]) -> Job:
    """What `as_json` gave, of a study of these `cells`, by name."""
    asked = []
    for name, replicas in value["cells"]:
        asked.append(dataclasses.replace(cells[name], replicas=tuple(Replica(**replica) for replica in replicas)))
    return Job(value["what"], tuple(asked), tuple(value["words"]))


class Workers(contextlib.AbstractContextManager):
    """Spawned when first needed, and again in the place of one that died; use as a context manager.

    Args:
      command: starts a worker, followed by its workdir, its slot and the platform.
      count: slots that may be used.
      lock: the workdir's, held by each worker too: no other study begins there while one of them lives.
    """

    def __init__(self, command: tuple[str, ...], count: int, workdir: Workdir, lock, stop: Notice):
        self._command, self.count, self._workdir, self._lock, self._stop = command, count, workdir, lock, stop
        self._slots: list[_Worker | None] = [None] * count
        self._lines: list[Line] = []
        self._events, self._oom_kills = queue.SimpleQueue(), slots.oom_kills()

    def __exit__(self, *_):
        for worker in filter(None, self._slots):
            worker.process.kill()
            worker.process.wait()

    def run(self, jobs: list[Job], progress: StudyProgress) -> None:
        """Until all jobs are done, or given up since their worker died twice.

        Raises:
          Preempted: asked to stop; so were the workers, and none is left.
          OSError: a worker found the disk full.
        """
        waiting, tried = collections.deque(sorted(jobs, key=_cost, reverse=True)), collections.Counter()
        self._lines = self._lines or [Line(progress) for _ in range(self.count)]
        try:
            while waiting or any(worker and worker.job for worker in self._slots):
                self._stop.check()
                for slot, worker in enumerate(self._slots):
                    if waiting and not (worker and worker.job):
                        self._give(slot, waiting.popleft())
                try:
                    worker, event = self._events.get(timeout=0.1)
                except queue.Empty:
                    continue
                if event is None:
                    again = self._died(worker, tried)
                    waiting.extendleft([again] if again else [])
                elif event["call"] == "finished":
                    worker.job = None
                elif event["call"] == "fault":  # what a worker could not keep inside its cell
                    disk, trace = event["args"]
                    if disk:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    raise RuntimeError(f"a worker ended with:\n{trace}")
                else:  # a call of Line
                    getattr(self._lines[worker.slot], event["call"])(*event["args"])
        except Preempted:
            running = [worker.process for worker in self._slots if worker]
            for process in running:
                process.terminate()
            until = time.monotonic() + SECONDS_TO_STOP
            while any(process.poll() is None for process in running) and time.monotonic() < until:
                time.sleep(0.05)
            raise

    def leave(self) -> None:
        """Lets all workers end, so that nothing runs beside what comes next; `run` starts them again."""
        for slot, worker in enumerate(self._slots):
            if worker:
                worker.send({"what": "leave"})
                worker.process.wait()
                self._slots[slot] = None

    def _give(self, slot: int, job: Job) -> None:
        worker = self._slots[slot]
        if worker is None:
            self._lines[slot].begin(job.name, "waiting for its worker to start")
            where = str(self._workdir.path.resolve()), str(slot), jax.default_backend()
            worker = _Worker([*self._command, *where], slot, self._lock)
            self._slots[slot] = worker
            threading.Thread(target=worker.read, args=(self._events,), daemon=True).start()
        worker.job = job
        worker.send(job.as_json())

    def _died(self, worker: "_Worker", tried: collections.Counter) -> Job | None:
        """The job that the dead worker leaves and that is tried again; one that is given up is noted in its folder."""
        code, job = worker.process.wait(), worker.job
        if self._slots[worker.slot] is worker:
            self._slots[worker.slot] = None
        if job is None:
            return None
        line = self._lines[worker.slot]
        killed_for_memory = code == -signal.SIGKILL and slots.oom_kills() > self._oom_kills
        self._oom_kills += killed_for_memory
        tried[job.name, killed_for_memory] += 1
        first, how = tried[job.name, killed_for_memory] == 1, f"by signal {-code}" if code < 0 else f"with code {code}"
        folder, again, state = self._workdir.cell(job.name), first, "failed"
        goes_on = f"its worker ended {how}; it goes on from its last checkpoint in a new one."
        reason = f"its worker ended {how}, twice."
        if job.what == "time":  # the cells stay done without step times, which the study's next start measures
            goes_on = f"the worker that times steps ended {how}; a new one begins again."
            reason = f"the worker that times steps ended {how}, twice; the same command tries it again."
        elif killed_for_memory:
            again, state = first and packs.halve(folder), "out_of_memory"
            goes_on = "its worker was killed for want of memory; it starts again with half the replicas at once."
            reason = (
                "the kernel killed its worker for want of memory; ask for fewer --workers, or, in another --workdir, "
                "raise train.accumulate, set model.remat=block, or lower train.batch_size or data.seq_len."
            )
        if again:
            line.say(goes_on)
        elif job.what == "time":
            line.end("step times", "not measured", reason)
        else:
            folder.write_status(state, reason)
            line.end(job.name, state, reason)
        return job if again else None


class _Worker:
    """One process, and the job that it is at."""

    def __init__(self, command: list[str], slot: int, lock):
        self.slot, self.job = slot, None
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "pass_fds": [lock.fileno()]}
        # In a session of its own, since Ctrl-C is for the parent, which passes it on.
        self.process = subprocess.Popen(command, start_new_session=True, **pipes)

    def send(self, line: dict) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died, which `read` sees too
            self.process.stdin.write(json.dumps(line) + "\n")
            self.process.stdin.flush()

    def read(self, events: queue.SimpleQueue) -> None:
        """Puts each of its lines into `events`, and None at its end."""
        for line in self.process.stdout:
            # A torn line, since it was killed while it wrote, or what something else printed, is none of its.
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                events.put((self, said)) if isinstance(said, dict) else None
        events.put((self, None))


def _cost(job: Job) -> float:
    """FLOPs a token, exps counted by the time that they take, times replicas; a dose takes more steps the larger it is,
    and the fewer the heads: one takes two to nine times those of eight (docs/results/relations.md)."""

    total = 0
    for cell in job.cells:
        exps = FLOPS_PER_EXP.get(cell.model.d_k, FLOPS_PER_EXP_ELSE) * budget.exps_per_token(cell.model)
        steps = cell.dose / cell.model.num_heads**0.5 if cell.dose else 1
        total += steps * len(cell.replicas) * (budget.flops_per_token(cell.model) + exps)
    return total
