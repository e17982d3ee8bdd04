"""A trace of some training steps by jax.profiler, for TensorBoard's profile plugin or xprof."""

import contextlib
import pathlib

import jax


class Trace(contextlib.AbstractContextManager):
    """Use as a context manager, so that a trace which is cut short is written too.

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
