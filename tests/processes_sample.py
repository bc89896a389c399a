"""Real processes for tests: started in a group of their own, waited for, and killed with all their children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@contextmanager
def process_group(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run `command` at the repository's root in a group of its own, which is killed with all its children at the end."""
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the daemon's children outlive a SIGTERM
        process.wait(timeout=30)


def until(question: Callable[[], Any], seconds: float, log: Path) -> Any:
    """Return the first true answer to `question`, asked once a second; after `seconds` the test fails with the log's end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = question()
        if answer:
            return answer
        time.sleep(1)
    pytest.fail(f"nothing within {seconds} s; the process's log ends with:\n{log.read_text()[-3000:]}")


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
