"""A Feast repository of SIDs: what an item's SID was at a time, in the files, and as Feast itself joins and serves it."""

import json
import os
import subprocess
from pathlib import Path

import polars as pl
import pytest
import warehouse_sample as sample
from typer.testing import CliRunner

from sidlake.cli.app import app
from sidlake.errors import NotFoundError
from sidlake.generative.exports.feast_repo import write_feast_repo
from sidlake.warehouse.catalog import query
from sidlake.warehouse.releases import get, history, publish, rollback
from sidlake.warehouse.tables import Warehouse

ITEM = "item '000\""
ASKED = """
import json, sys
from datetime import datetime, timezone
import pandas as pd
from feast import FeatureStore

store, asked = FeatureStore(repo_path="."), json.loads(sys.argv[1])
rows = pd.DataFrame({"item_id": [a for a, _ in asked], "event_timestamp": [datetime.fromisoformat(t) for _, t in asked]})
names = ["item_sids:sid", "item_sids:generation", "item_sids_g1:prefixes"]
joined = store.get_historical_features(entity_df=rows.assign(row=range(len(rows))), features=names).to_df().sort_values("row")
store.materialize(datetime(2020, 1, 1, tzinfo=timezone.utc), datetime.now(timezone.utc))
online = store.get_online_features(features=["item_sids:sid", "item_sids:codes"], entity_rows=[{"item_id": a} for a, _ in asked])
plain = lambda value: None if value is None or value is pd.NA or value != value else value
print(json.dumps({
    "sid": [plain(v) for v in joined["sid"]], "generation": [plain(v) for v in joined["generation"]],
    "prefixes": [None if v is None else list(v) for v in joined["prefixes"]], "online": online.to_dict(),
}))
"""


def publish_next(lake, count, generation="g1", skip=0):
    known, run_id = history(lake), f"run-{len(history(lake))}"
    tables = sample.write(lake, count, run_id=run_id, generation=generation, skip=skip)
    draft = sample.draft(tables, run_id=run_id, generation=generation)
    return publish(lake, draft, expected_parent=known[-1].release_id if known else None)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Two releases of a generation, one of another in which all SIDs changed, and a rollback to the first."""
    lake = Warehouse.create_or_open(tmp_path_factory.mktemp("feast") / "lake")
    publish_next(lake, 12)
    publish_next(lake, 14)
    publish_next(lake, 13, generation="g2", skip=3)
    rollback(lake, "r000001", reason="the model that reads g2 is not ready")
    return lake


def test_the_latest_row_of_an_item_at_a_releases_time_is_what_that_release_says(lake, tmp_path):
    write_feast_repo(lake, tmp_path / "repo")
    rows = pl.read_parquet(tmp_path / "repo" / "data" / "item_sids.parquet")
    for release in history(lake):
        then = rows.filter(pl.col("event_timestamp") <= release.created_at).sort("event_timestamp").group_by("item_id").last()
        said = query(lake, f"SELECT item_id, sid FROM semantic_ids_at('{release.release_id}')").to_pylist()
        found = dict(then.select("item_id", "sid").iter_rows())
        assert {row["item_id"]: row["sid"] for row in said}.items() <= found.items()


def test_a_row_is_written_only_where_a_sid_changed(lake, tmp_path):
    write_feast_repo(lake, tmp_path / "repo")
    data = tmp_path / "repo" / "data"
    assert pl.read_parquet(data / "item_sids.parquet").group_by("release_id").len().sort("release_id").rows() == [
        ("r000001", 12),
        ("r000002", 2),
        ("r000003", 13),
        ("r000004", 12),
    ]
    assert pl.read_parquet(data / "item_sids_g1.parquet")["item_id"].is_unique().all()


def test_an_export_later_brings_the_data_up_to_date_and_leaves_the_store_as_it_was_set(lake, tmp_path):
    write_feast_repo(lake, tmp_path / "repo")
    (tmp_path / "repo" / "feature_store.yaml").write_text("project: mine\n")
    (tmp_path / "repo" / "data" / "item_sids.parquet").unlink()
    release, files = write_feast_repo(lake, tmp_path / "repo")
    assert release == get(lake).release_id
    assert all(path.exists() for path in files)
    assert (tmp_path / "repo" / "feature_store.yaml").read_text() == "project: mine\n"


def test_the_command_names_its_files(lake, tmp_path):
    command = ["export", "feast", str(tmp_path / "repo"), "-w", str(lake.root), "--json"]
    told = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).output)
    assert told["release"] == "r000004"
    assert sorted(told["files"]) == sorted(str(path) for path in (tmp_path / "repo").rglob("*") if path.is_file())


def test_before_the_first_release_there_is_nothing_to_write(tmp_path):
    with pytest.raises(NotFoundError, match="nothing has been published"):
        write_feast_repo(Warehouse.create_or_open(tmp_path / "lake"), tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


def feast_programs():
    found = Path(os.environ.get("SIDLAKE_FEAST") or Path(__file__).parents[1] / ".venv" / "feast") / "bin"
    if not (found / "feast").exists():
        pytest.skip(f"no Feast in {found}: make .venv/feast")
    return found


@pytest.mark.slow
def test_feast_joins_what_was_current_then_and_serves_what_is_now(lake, tmp_path):
    programs, repo = feast_programs(), tmp_path / "repo"
    write_feast_repo(lake, repo)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FEAST_USAGE": "False", "IS_TEST": "True"}
    subprocess.run([programs / "feast", "apply"], cwd=repo, env=env, check=True, capture_output=True)
    releases = history(lake)
    asked = [(ITEM, one.created_at.isoformat()) for one in releases] + [("nobody", releases[-1].created_at.isoformat())]
    done = subprocess.run([programs / "python", "-c", ASKED, json.dumps(asked)], cwd=repo, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    first, other = (
        query(
            lake, f"SELECT sid, codes FROM semantic_ids_at('{of}') WHERE item_id = '{ITEM.replace(chr(39), chr(39) * 2)}'"
        ).to_pylist()[0]
        for of in ("r000001", "r000003")
    )
    assert said["sid"] == [first["sid"], first["sid"], other["sid"], first["sid"], None]
    assert said["generation"] == ["g1", "g1", "g2", "g1", None]
    assert said["prefixes"][2] == said["prefixes"][0] == ["0", "0_0", "0_0_0"]
    assert said["online"]["sid"] == [first["sid"]] * 4 + [None]
    assert said["online"]["codes"][0] == first["codes"]
