"""Train one pack of replicas, from its newest checkpoint until its rule ends it: the linear story."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from train.config import StudyConfig
from train.hosts.preemption import Notice, Preempted
from train.run import checkpoint
from train.run.feed import STEPS_PER_DISPATCH
from train.run.metrics import Log
from train.run.packs import Pack
from train.run.program import Program, reordered
from train.run.step import State
from train.run.stops import Outcome, Rule
from train.workdir import CellFolder

DISPATCH_SECONDS = 1.0  # aimed at, so that a signal is answered soon


class Trained(NamedTuple):
    """Where a pack's training ended.

    Attributes:
      step: of its last checkpoint.
      outcomes: of every replica, where a rule looked at losses.
    """

    state: State
    step: int
    outcomes: list[Outcome]


def train(
    program: Program, folder: CellFolder, config: StudyConfig, fingerprint: str, rule: Rule, stop: Notice, progress
) -> Trained:
    """Trains `program.pack` until `rule` ends all its runs; its last checkpoint is on disk when this returns.

    A run that has ended leaves the others alone: on a CPU it costs no time, and whatever trains beside it, a run has
    the same bits.

    Args:
      progress: has `say(text)` and `steps(step, losses)`.

    Raises:
      Preempted: asked to stop; a checkpoint of the last step done is on disk.
    """
    pack, cap = program.pack, rule.cap
    store = folder.checkpoints(pack.index)
    newest = checkpoint.restore_newest(store, items_of(program.abstract_state), progress.say)
    step = newest[0] if newest else 0
    state = program.with_spare_rows(state_of(newest[1])) if newest else stop.wait_for(program.init)
    log = Log(folder.metrics, pack.index, step)
    looks = Log(folder.looks, pack.index, step + 1) if rule.look_every else None
    rows = _running(pack, rule, looks)
    if newest and step < cap and rows:
        progress.say(f"continues at step {step} of {cap}.")
    state, order = _in_order(state, rows, range(len(state.diverged_at)))
    description, dispatch, unread = describe(pack, config, fingerprint), 1, None
    trace = Trace(config.train.profile_steps, folder.profile(pack.index))
    with checkpoint.Saver(store, config.train.keep_checkpoints) as saver, trace:
        while step < cap and rows:
            # The first multiples behind this step, the cap at most.
            next_save, next_look = (
                min(cap, (step // every + 1) * every)
                for every in (config.train.checkpoint_every, rule.look_every or cap)
            )
            next_save = min([next_save, *(kept for kept in config.train.keep_checkpoints if kept > step)])
            count = trace.shortened(step, min(dispatch, next_save - step, next_look - step))
            trace.before(step)
            began = time.perf_counter()
            state, metrics = program.run(state, step, count, rows)
            if unread is not None:
                _record(log, pack, config, cap, progress, *unread)
            unread = (step, count, rows, metrics)
            step += count
            trace.after(step, metrics)
            if looks and step == next_look:
                for row, values in zip(rows, rule.look(state, rows), strict=True):
                    looks.write(pack.replicas[row].name, step, values)
                looks.flush()
                rows = _running(pack, rule, looks)
                state, order = _in_order(state, rows, order)
            if step in (next_save, cap) or not rows or stop.requested:
                _record(log, pack, config, cap, progress, *unread)
                unread = None
                saver.save(step, items_of(program.replicas_of(_in_order(state, (), order)[0])), description)
                if stop.requested and step < cap and rows:
                    raise Preempted
            dispatch = _next_dispatch(dispatch, time.perf_counter() - began)
        log.close()
    state, _ = _in_order(state, (), order)
    return Trained(program.replicas_of(state), step, rule.outcomes(looks.lines) if looks else [])


def _running(pack: Pack, rule: Rule, looks: Log | None) -> tuple[int, ...]:
    """The pack's replicas that `rule` lets train on."""
    ended = rule.ended(looks.lines) if looks else {}
    return tuple(row for row, replica in enumerate(pack.replicas) if replica.name not in ended)


def _in_order(state: State, rows: Sequence[int], order: Sequence[int]) -> tuple[State, tuple[int, ...]]:
    """The state, whose row i is number order[i], with `rows` in front and the others behind them in their own order;
    and that order."""
    wanted = (*rows, *(row for row in range(len(order)) if row not in rows))
    if wanted == tuple(order):
        return state, wanted
    return reordered(state, np.array([tuple(order).index(row) for row in wanted])), wanted


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


def _record(
    log: Log, pack: Pack, config: StudyConfig, cap: int, progress, first: int, count: int, rows, metrics
) -> None:
    values = read_back(metrics)
    for step in range(first, first + count):
        if step % config.train.log_every == 0 or step == cap - 1:
            for place, row in enumerate(rows):
                numbers = {name: value[place, step - first] for name, value in values.items()}
                log.write(pack.replicas[row].name, step, numbers)
    log.flush()
    progress.steps(first + count, values["loss"][: len(rows), count - 1])


def _next_dispatch(dispatch: int, seconds: float) -> int:
    """Twice as many steps while a dispatch is short, half while it is long."""
    if seconds < DISPATCH_SECONDS / 2:
        return min(STEPS_PER_DISPATCH, 2 * dispatch)
    return max(1, dispatch // 2) if seconds > DISPATCH_SECONDS else dispatch


class Trace(contextlib.AbstractContextManager):
    """A trace of some training steps by jax.profiler, for TensorBoard's profile plugin or xprof; use as a context
    manager, so that one which is cut short is written too.

    Args:
      steps: the first and the last step to trace; () for none.
      folder: where the trace goes.
    """

    def __init__(self, steps: tuple[int, ...], folder: pathlib.Path):
        self._edges = (steps[0], steps[1] + 1) if steps else ()
        self._folder, self._running = folder, False

    def __exit__(self, *_):
        if self._running:
            jax.profiler.stop_trace()
            self._running = False

    def shortened(self, step: int, count: int) -> int:
        """A dispatch of `count` steps from `step` on, cut where the trace begins or ends."""
        return min([count, *(edge - step for edge in self._edges if edge > step)])

    def before(self, step: int) -> None:
        """Begins, if `step` is the first to trace."""
        if self._edges and step == self._edges[0]:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, step: int, metrics) -> None:
        """Ends, if the step before `step`, which `metrics` wait for, was the last to trace."""
        if self._running and step == self._edges[1]:
            jax.block_until_ready(metrics)
            self.__exit__()
