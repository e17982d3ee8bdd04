"""What benchmarks/host_memory.py reads of processes."""

import subprocess
import sys

import pytest

from benchmarks import host_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
CHILD = "import time; held = bytearray(b'x') * 10**8; time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_children_count():
    process = subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True)
    try:
        with host_memory.Largest([process.pid]) as memory, pytest.raises(subprocess.TimeoutExpired):
            process.wait(4 * host_memory.EVERY + 2)
    finally:
        for pid in reversed(host_memory.with_descendants([process.pid])):
            subprocess.run(["kill", "-9", str(pid)], check=False)
        process.wait()
    assert 1e8 < memory.bytes < 1.6e8
    assert host_memory.with_descendants([process.pid]) == [process.pid]
