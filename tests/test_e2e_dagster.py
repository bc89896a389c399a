"""Real processes: the daemon that fires a schedule, a backfill by the UI's API, and the command that `make demo` calls."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml

from sidlake.assets.launch import launch
from sidlake.warehouse.releases import history

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))
ROOT = Path(__file__).parents[1]
TICK_SECONDS, RUN_SECONDS = 180, 180

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]


@pytest.fixture
def shop(tmp_path):
    """A shop, a DAGSTER_HOME with the repository's settings, and the environment of a process that uses both."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", home)
    recipe = SAMPLE.write_shop(tmp_path / "shop")
    places = {"DAGSTER_HOME": str(home), "SIDLAKE_WAREHOUSE": str(tmp_path / "w"), "SIDLAKE_RECIPE": str(recipe)}
    return SimpleNamespace(home=home, resource=SAMPLE.resource(tmp_path / "w", recipe), environment=os.environ | places)


def test_the_daemon_fires_the_daily_schedule_and_its_run_succeeds(shop):
    with SAMPLE.instance() as instance:
        assert launch("retrain", shop.resource, instance) == []
    environment = shop.environment | {"SIDLAKE_SCHEDULES": "on", "SIDLAKE_REFRESH_CRON": "* * * * *"}
    log, daemon = shop.home / "daemon.log", str(Path(sys.executable).parent / "dagster-daemon")
    with _process_group([daemon, "run"], environment, log), dg.DagsterInstance.from_config(str(shop.home)) as instance:
        wanted = dg.RunsFilter(job_name="refresh", tags={"dagster/schedule_name": "daily_refresh"})
        (run, *_) = _until(lambda: instance.get_runs(wanted), TICK_SECONDS, log)
        ended = _until(lambda: _finished(instance, run.run_id), RUN_SECONDS, log)
        assert ended.status is dg.DagsterRunStatus.SUCCESS
    assert len(history(shop.resource.open_warehouse())) == 1  # nothing was new


def test_the_demo_s_command_prints_steps_and_tour_and_leaves_its_run_for_the_ui(shop):
    command = [sys.executable, "-m", "sidlake.assets.launch", "retrain"]
    done = subprocess.run(command, cwd=ROOT, env=shop.environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    steps = [line.split()[0] for line in done.stderr.splitlines() if " s  " in line]
    assert (len(steps), steps[0], steps[-3], set(steps[-2:])) == (15, "ingest", "release", {"train", "report"})
    assert "DEBUG" not in done.stderr
    assert "Release r000001" in done.stdout
    with dg.DagsterInstance.from_config(str(shop.home)) as instance:
        (run,) = instance.get_runs()
        assert (run.job_name, run.status) == ("retrain", dg.DagsterRunStatus.SUCCESS)


def test_the_shipped_settings_limit_the_gpu_pool_and_send_no_telemetry(shop):
    settings = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    assert settings["telemetry"] == {"enabled": False}
    assert settings["nux"] == {"enabled": False}
    with dg.DagsterInstance.from_config(str(shop.home)) as instance:
        assert instance.telemetry_enabled is False
        assert instance.global_op_concurrency_default_limit == 1
        assert instance.run_retries_enabled is False


@contextmanager
def _process_group(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
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


def _until(question: Callable[[], Any], seconds: float, log: Path) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = question()
        if answer:
            return answer
        time.sleep(1)
    pytest.fail(f"nothing within {seconds} s; the daemon's log ends with:\n{log.read_text()[-3000:]}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _asked(port: int, query: str, **variables: Any) -> Any:
    """Return the answer of the UI's API, None while nobody answers."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["data"]
    except (urllib.error.URLError, ConnectionError):
        return None


def _finished(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun | None:
    run = instance.get_run_by_id(run_id)
    return run if run is not None and run.is_finished else None
