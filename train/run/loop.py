"""Train one pack of replicas, from its newest checkpoint to its last step: the linear story."""

import dataclasses
import json
import time

import jax
import numpy as np

from train.config import StudyConfig
from train.hosts.preemption import Notice, Preempted
from train.run import checkpoint
from train.run.metrics import MetricsLog
from train.run.packs import Pack
from train.run.program import STEPS_PER_DISPATCH, Program
from train.run.step import State
from train.run.trace import Trace
from train.workdir import CellFolder

DISPATCH_SECONDS = 1.0  # aimed at, so that a signal is answered soon


def train(program: Program, folder: CellFolder, config: StudyConfig, fingerprint: str, stop: Notice, progress) -> State:
    """The trained state of `program.pack`; its last checkpoint is on disk when this returns.

    Args:
      progress: has `say(text)` and `steps(step, losses)`.

    Raises:
      Preempted: asked to stop; a checkpoint of the last step done is on disk.
    """
    pack, steps = program.pack, config.train.steps
    store = folder.checkpoints(pack.index)
    found = checkpoint.restore_newest(store, items_of(program.abstract_state), progress.say)
    if found:
        step, state = found[0], program.with_spare_rows(state_of(found[1]))
    else:
        step, state = 0, stop.wait_for(program.init)
    if found and step < steps:
        progress.say(f"continues at step {step} of {steps}.")
    log = MetricsLog(folder.metrics, pack.index, step)
    description = describe(pack, config, fingerprint)
    dispatch, unread = 1, None
    with checkpoint.Saver(store) as saver, Trace(config.train.profile_steps, folder.profile(pack.index)) as trace:
        while step < steps:
            next_save = min(steps, (step // config.train.checkpoint_every + 1) * config.train.checkpoint_every)
            count = trace.shortened(step, min(dispatch, next_save - step))
            trace.before(step)
            began = time.perf_counter()
            state, metrics = program.run(state, step, count)
            if unread is not None:
                _record(log, pack, config, progress, *unread)
            unread = (step, count, metrics)
            step += count
            trace.after(step, metrics)
            if step == next_save or stop.requested:
                _record(log, pack, config, progress, *unread)
                unread = None
                saver.save(step, items_of(program.replicas_of(state)), description)
            if stop.requested and step < steps:
                raise Preempted
            dispatch = _next_dispatch(dispatch, time.perf_counter() - began)
        log.close()
    return program.replicas_of(state)


def items_of(state: State) -> dict:
    """What a checkpoint stores of a state, by name."""
    return {"params": state.params, "opt_state": state.opt_state, "replicas": {"diverged_at": state.diverged_at}}


def state_of(items: dict) -> State:
    return State(items["params"], items["opt_state"], items["replicas"]["diverged_at"])


def describe(pack: Pack, config: StudyConfig, fingerprint: str) -> dict:
    """What evaluation needs to rebuild the model from the checkpoint alone, and what shaped it."""
    value = {"pack": pack.as_json(), "config": dataclasses.asdict(config), "data_fingerprint": fingerprint}
    return json.loads(json.dumps(value))


def read_back(metrics: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    """The one place where the loop waits for the device."""
    return jax.device_get(metrics)


def _record(log: MetricsLog, pack: Pack, config: StudyConfig, progress, first: int, count: int, metrics) -> None:
    values = read_back(metrics)
    for index in range(count):
        step = first + index
        if step % config.train.log_every == 0 or step == config.train.steps - 1:
            for row, replica in enumerate(pack.replicas):
                log.write(replica.name, step, {name: float(value[row, index]) for name, value in values.items()})
    log.flush()
    progress.steps(first + count, values["loss"][: len(pack.replicas), count - 1])


def _next_dispatch(dispatch: int, seconds: float) -> int:
    """Twice as many steps while a dispatch is short, half while it is long."""
    if seconds < DISPATCH_SECONDS / 2:
        return min(STEPS_PER_DISPATCH, 2 * dispatch)
    return max(1, dispatch // 2) if seconds > DISPATCH_SECONDS else dispatch
