"""A service in a process of its own, as `sidlake serve` starts it, and a client that asks it over one connection."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).parents[1]


class Client:
    """Asks one service; one thread at a time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path: str, *, method: str = "GET", body: bytes | None = None) -> tuple[int, Any, str | None]:
        """Return the status, the JSON that was answered, and the release in its header."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers["X-Sidlake-Release"]

    def get(self, *parts: str, **query: object) -> tuple[int, Any, str | None]:
        """Return what `ask` does of a path of these parts, percent-encoded."""
        asked = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
        return self.ask("/" + "/".join(quote(part, safe="") for part in parts) + (f"?{asked}" if asked else ""))

    def post(self, path: str, value: object) -> tuple[int, Any, str | None]:
        """Return what `ask` does of a POST of JSON."""
        return self.ask(path, method="POST", body=json.dumps(value).encode())


@contextmanager
def serving(warehouse: Path, *arguments: str, log: Path, every: float = 0.05) -> Iterator[int]:
    """Yield the port of `sidlake serve`, which ends with SIGTERM and must say nothing of a fault by then."""
    command = [str(Path(sys.executable).parent / "sidlake"), "serve", "--warehouse", str(warehouse), "--port", "0"]
    command += ["--every", str(every), *arguments]
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=stream, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "http://" in line, log.read_text()
        yield int(line.split("http://127.0.0.1:")[1].split(";")[0])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        finally:
            process.kill()
            process.stdout.close()
    assert "Traceback" not in log.read_text(), log.read_text()
