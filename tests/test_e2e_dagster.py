"""Real processes: the daemon that fires a schedule in an instance kept in Postgres, and the command that `make demo` calls."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import psycopg2
import pytest
import yaml
from processes_sample import ROOT, process_group, until

from sidlake.assets.launch import launch
from sidlake.warehouse.releases import history

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))
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


def test_the_daemon_fires_the_daily_schedule_in_an_instance_kept_in_postgres(shop, postgres, monkeypatch):
    with SAMPLE.instance() as instance:
        assert launch("retrain", shop.resource, instance) == []
    _keep_in_postgres(shop, postgres, monkeypatch)
    environment = shop.environment | {"SIDLAKE_SCHEDULES": "on", "SIDLAKE_REFRESH_CRON": "* * * * *"}
    log, daemon = shop.home / "daemon.log", str(Path(sys.executable).parent / "dagster-daemon")
    with process_group([daemon, "run"], environment, log), dg.DagsterInstance.from_config(str(shop.home)) as instance:
        wanted = dg.RunsFilter(job_name="refresh", tags={"dagster/schedule_name": "daily_refresh"})
        (run, *_) = until(lambda: instance.get_runs(wanted), TICK_SECONDS, log)
        ended = until(lambda: _finished(instance, run.run_id), RUN_SECONDS, log)
        assert ended.status is dg.DagsterRunStatus.SUCCESS
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        assert {event.dagster_event.step_key for event in instance.all_logs(run.run_id) if event.is_dagster_event} >= {"ingest"}
        (state,) = [state for state in instance.all_instigator_state() if state.instigator_name == "daily_refresh"]
        assert instance.get_ticks(state.instigator_origin_id, state.selector_id)[0].run_ids == [run.run_id]
    assert _tables(postgres) >= {"runs", "event_logs", "job_ticks"}
    assert not list(shop.home.rglob("*.db"))
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


def _keep_in_postgres(shop: SimpleNamespace, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add to the shop's dagster.yaml what docs/dagster.md says, and to its environment the database's address."""
    (lines,) = re.findall(r"```yaml\n(storage:\n.*?)```", (ROOT / "docs" / "dagster.md").read_text(), re.DOTALL)
    with (shop.home / "dagster.yaml").open("a") as settings:
        settings.write(f"\n{lines}")
    url = address.replace("postgresql:", "postgresql+psycopg2:")
    shop.environment["DAGSTER_POSTGRES_URL"] = url
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)


def _tables(address: str) -> set[str]:
    with closing(psycopg2.connect(address)) as connection, connection.cursor() as cursor:
        cursor.execute("select relname from pg_stat_user_tables where n_tup_ins > 0")
        return {name for (name,) in cursor.fetchall()}


def _finished(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun | None:
    run = instance.get_run_by_id(run_id)
    return run if run is not None and run.is_finished else None
