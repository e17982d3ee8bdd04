"""SIGTERM and Ctrl-C: noticed between dispatches, so that the pending save is finished and nothing is half done."""

import contextlib
import signal
import threading
from collections.abc import Callable
from concurrent import futures


class Preempted(BaseException):
    """The process was asked to stop; what is done is saved, the same command continues. Not an Exception, so that no
    cell's fault handling swallows it."""


class Notice:
    """Whether this process was asked to stop.

    JAX installs a notice of its own only after `jax.distributed.initialize`, and it swallows the signal then, so this
    is the one handler of a process.
    """

    def __init__(self, patient: bool = False):
        """Args:
        patient: a second signal changes nothing (a worker may have one from its parent and one from the host); else
          it raises Preempted wherever the process is, since a person asked again.
        """
        self.requested, self._at_once, self._patient = False, False, patient

    @contextlib.contextmanager
    def installed(self):
        """Within, SIGTERM and SIGINT come here (Python takes signals in the main thread only; elsewhere none do)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._received) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _received(self, *_):
        again, self.requested = self.requested, True
        if self._at_once or again and not self._patient:
            raise Preempted

    def check(self) -> None:
        """Raises Preempted if the process was asked to stop."""
        if self.requested:
            raise Preempted

    @contextlib.contextmanager
    def at_once(self):
        """Within, a signal raises Preempted immediately: for work that is safe to drop anywhere."""
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def wait_for(self, work: Callable):
        """Runs `work()` in a thread and returns its result; raises Preempted as soon as the process is asked to stop.

        No Python signal handler runs while the main thread is inside an XLA compile, hence the thread. It is abandoned
        on Preempted, so `work` must leave nothing half done on disk, and the process must leave by os._exit.
        """
        self.check()
        outcome = futures.Future()

        def run():
            try:
                outcome.set_result(work())
            except BaseException as error:
                outcome.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        while not outcome.done():
            futures.wait([outcome], timeout=0.1)
            self.check()
        return outcome.result()
