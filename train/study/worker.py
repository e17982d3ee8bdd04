"""A worker: the process that one slot's cells run in, one after another, as its parent sends them.

A line of JSON each way: jobs come on standard input, and what a StudyProgress is told goes out on standard output. The
end of the input is the end of the parent, and of the worker in that moment.
"""

import functools
import json
import os
import pathlib
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping

import numpy as np

from train.exit_codes import DONE, FAULT, RUN_AGAIN
from train.hosts.preemption import Notice, Preempted
from train.workdir import Workdir, disk_is_full

SCORE = 500  # added to the kernel's, so that it kills a worker before the parent when memory runs out


class Report:
    """What a StudyProgress is told, sent to the parent."""

    def __init__(self, file):
        self._file = file

    def send(self, call: str, *args) -> None:
        self._file.write(json.dumps({"call": call, "args": args}, default=np.ndarray.tolist) + "\n")
        self._file.flush()

    say, begin, steps, end = map(functools.partialmethod, [send] * 4, ("say", "begin", "steps", "end"))


def main(path: str, jobs: Mapping[str, Callable], stop: Notice) -> int:
    """Serves the study at `path` until it is told to leave; does not return.

    Args:
      jobs: as of train.study.launch.Study.
    """
    report = Report(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # whatever else prints must not garble the lines
    score, lines = pathlib.Path("/proc/self/oom_score_adj"), queue.SimpleQueue()
    if score.exists():
        score.write_text(str(SCORE))
    end_with_parent(lines.put)
    try:
        _serve(Workdir(pathlib.Path(path)), jobs, stop, lines, report)
    except Preempted:
        os._exit(RUN_AGAIN)  # a compile may still run in a thread, and would be waited for
    except Exception as error:
        report.send("fault", "disk is full" if disk_is_full(error) else "", traceback.format_exc())
        os._exit(FAULT)
    os._exit(DONE)  # an orderly end would wait for the thread that reads


def end_with_parent(take: Callable[[str], None]) -> None:
    """Lets `take` have each line of standard input; its end is the end of the parent, and of this process with it."""

    def read():
        for line in sys.stdin:
            take(line)
        os._exit(FAULT)

    threading.Thread(target=read, daemon=True).start()


def _serve(
    workdir: Workdir, jobs: Mapping[str, Callable], stop: Notice, lines: queue.SimpleQueue, report: Report
) -> None:
    with stop.at_once():
        import jax

        from train.hosts import memory, workers
        from train.study import launch

        config, corpus, cells = launch.reopened(workdir)
    study = launch.Study(config, workdir, corpus, jobs, stop, report)
    while True:
        with stop.at_once():
            line = json.loads(lines.get())
        if line["what"] == "leave":
            return
        asked = workers.job_of(line, cells)
        jobs[asked.what](study, asked)
        if corpus is not None:  # cells of doses share their shapes
            jax.clear_caches()  # traces of this job, which serve no other and take some 50 MB
        memory.give_back()
        report.send("finished")
