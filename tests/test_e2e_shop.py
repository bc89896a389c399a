"""The whole path on real transactions, through the command line, as a user types it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import polars as pl
import pytest
from shop_sample import PRECISION, small_shop, write_recipe

from sidlake.errors import GateFailed, SidlakeError
from sidlake.pipelines.beam import BeamEngine
from sidlake.warehouse.releases import current, get, history
from sidlake.warehouse.tables import Warehouse


def codes_of(warehouse, release_id="current"):
    lake = Warehouse(warehouse)
    release = get(lake, release_id)
    rows = lake.read("semantic_ids", version=release.tables["semantic_ids"], columns=["item_id", "sid"])
    return dict(zip(rows.column("item_id").to_pylist(), rows.column("sid").to_pylist(), strict=True))


# ---------------------------------------------------------------------------------------------------------- what a run leaves


def test_every_item_has_one_sid_and_every_sid_one_item(shop):
    answer = json.loads(
        shop.sidlake("query", "select count(*) = count(distinct sid) as u, count(*) as n from semantic_ids", "--json").stdout
    )
    assert answer == [{"u": True, "n": 200}]


def test_status_shows_tables_rejections_verdicts_and_models(shop):
    state = json.loads(shop.sidlake("status", "--json").stdout)
    rows = {table["table"]: table["rows"] for table in state["tables"]}
    assert rows["items"] == rows["semantic_ids"] == 200
    assert {"cancelled_invoice", "price_not_positive"} <= {r["rule"] for r in state["rejected"]}
    assert {row["metric"] for row in state["quality"]} >= {"ehr_raw", "ehr_quantized", "ehr_reconstructed", "ehr_random_floor"}
    assert {row["model"] for row in state["models"]} == {"decoder", "most_popular", "item_to_item", "nearest_fused"}
    assert "release r000001 of generation g0001" in shop.sidlake("status").stdout


def test_show_finds_an_item_by_id_and_by_sid(shop):
    item, sid = next(iter(codes_of(shop.warehouse).items()))
    by_id, by_sid = (json.loads(shop.sidlake("show", name, "--json").stdout) for name in (item, sid))
    assert by_id == by_sid
    assert by_id["sid"] == sid


def test_neighbors_are_sorted_by_cosine(shop):
    rows = json.loads(shop.sidlake("neighbors", next(iter(codes_of(shop.warehouse))), "-k", "5", "--json").stdout)
    cosines = [row["cosine"] for row in rows]
    assert len(rows) == 5
    assert cosines == sorted(cosines, reverse=True)


def test_recommendations_name_items_of_the_release(shop):
    sql = "select count(*) as n, count(*) filter (item_id in (select item_id from items)) as known from recommendations"
    (row,) = json.loads(shop.sidlake("query", sql, "--json").stdout)
    assert row["n"] == row["known"] > 0


def test_the_catalogue_needs_nothing_but_duckdb(shop, tmp_path):
    code = "import sys, duckdb; print(duckdb.connect(sys.argv[1], read_only=True).sql(sys.argv[2]).fetchall())"
    command = [
        sys.executable,
        "-c",
        code,
        str(shop.warehouse / "catalog.duckdb"),
        "select count(*) from semantic_ids_at('r000001')",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[(200,)]", done.stderr


def test_sid_trie_spells_exactly_the_published_sids(shop):
    spelled = codes_of(shop.warehouse)
    sql = "select count(*) as leaves from sid_trie where item_id is not null"
    assert json.loads(shop.sidlake("query", sql, "--json").stdout) == [{"leaves": len(spelled)}]


# ------------------------------------------------------------------------------------------------------------------ exit codes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["query", "select nonsense from nowhere"], "nowhere"),
        (["show", "no-such-item"], "no item or SID 'no-such-item'"),
        (["neighbors", "no-such-item"], "no item 'no-such-item'"),
        (["run", "publish"], "unknown job 'publish'"),
        (["run", "refresh", "--engine", "spark"], "unknown engine 'spark'"),
        (["run", "refresh", "--recipe", "nowhere.toml"], "nowhere.toml"),
        (["status", "--warehouse", "nowhere"], "no warehouse at"),
        (["wat"], "No such command"),
    ],
)
def test_bad_usage_exits_2_and_says_what(shop, arguments, says):
    done = shop.sidlake(*arguments, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_has_help_with_an_example(shop):
    text = shop.sidlake("--help").stdout
    for command in ("run", "status", "show", "neighbors", "query", "releases", "ui"):
        assert command in text
        assert "Example: sidlake" in " ".join(shop.sidlake(command, "--help").stdout.split())


def test_version_is_printed(shop):
    assert shop.sidlake("--version").stdout.startswith("sidlake 0.")


# ------------------------------------------------------------------------------------------------------- again, and new items


def test_a_second_run_does_nothing_and_says_so(shop_copy):
    again = shop_copy.sidlake("run", "retrain", "--json")
    assert all(report["skipped"] for report in json.loads(again.stdout)), again.stdout
    assert "nothing to do" in again.stderr
    assert len(history(Warehouse(shop_copy.warehouse))) == 1


def test_refresh_assigns_new_items_and_moves_no_published_sid(tmp_path, fresh_shop):
    small_shop(fresh_shop.recipe.parent, until="2010-06-01")
    fresh_shop.run("retrain")
    before = codes_of(fresh_shop.warehouse)
    small_shop(fresh_shop.recipe.parent)
    reports = {report.step: report for report in fresh_shop.run("refresh")}
    after = codes_of(fresh_shop.warehouse)
    assert 0 < len(before) < len(after) == len(set(after.values()))
    assert {item: after[item] for item in before} == before
    details = reports["assign"].details
    assert (details["assigned"], details["kept"]) == (len(after) - len(before), len(before))
    assert current(Warehouse(fresh_shop.warehouse)).generation == "g0001"
    assert codes_of(fresh_shop.warehouse, "r000001") == before
    at = "select (select count(*) from semantic_ids_at('r000001')) as old, (select count(*) from semantic_ids) as new"
    assert json.loads(fresh_shop.sidlake("query", at, "--json").stdout) == [{"old": len(before), "new": len(after)}]


def test_refresh_before_any_retrain_says_what_to_do(fresh_shop):
    done = fresh_shop.sidlake("run", "refresh", check=False)
    assert done.returncode == 2
    assert "run the retrain job first" in done.stderr


def test_refresh_with_another_text_encoder_is_refused(shop_copy):
    write_recipe(shop_copy.recipe.parent, replace={PRECISION: PRECISION + "max_length = 16\n"})
    with pytest.raises(SidlakeError, match="is not that of generation g0001"):
        shop_copy.run("refresh")
    assert len(history(Warehouse(shop_copy.warehouse))) == 1


# ------------------------------------------------------------------------------------------------ law 4: the same content hash


@pytest.mark.beam
@pytest.mark.slow
def test_the_same_inputs_give_the_same_content_hash_on_any_engine_and_number_of_workers(shop, tmp_path):
    expected = current(Warehouse(shop.warehouse)).content_hash
    shop.run("retrain", engine=BeamEngine(), warehouse=tmp_path / "one worker")
    shop.sidlake("run", "retrain", "--engine", "beam", "--workers", "4", "--warehouse", str(tmp_path / "four workers"))
    assert current(Warehouse(tmp_path / "one worker")).content_hash == expected
    assert current(Warehouse(tmp_path / "four workers")).content_hash == expected


def test_the_order_of_transactions_changes_no_sid(shop, tmp_path):
    rows = pl.read_parquet(shop.recipe.parent / "transactions.parquet")
    rows.sample(fraction=1.0, shuffle=True, seed=3).write_parquet(tmp_path / "transactions.parquet")
    recipe = write_recipe(tmp_path)
    shop.run("retrain", recipe=recipe, warehouse=tmp_path / "warehouse")
    assert codes_of(tmp_path / "warehouse") == codes_of(shop.warehouse)


# --------------------------------------------------------------------------------------------------- refusals, faults, writers


def test_a_gate_refuses_publication_and_nothing_is_published(fresh_shop):
    write_recipe(fresh_shop.recipe.parent, extra='\n[[gates]]\nmetric = "raw_largest_group"\nmaximum = 0.5\n')
    with pytest.raises(GateFailed, match="raw_largest_group"):
        fresh_shop.run("retrain")
    assert history(Warehouse(fresh_shop.warehouse)) == []


def test_too_many_rejected_rows_publish_nothing(fresh_shop):
    write_recipe(fresh_shop.recipe.parent, replace={"max_rejected_share = 0.05 ": "max_rejected_share = 0.0001 "})
    done = fresh_shop.sidlake("run", "retrain", check=False)
    assert done.returncode == 1
    assert "ContractError: items:" in done.stderr
    assert history(Warehouse(fresh_shop.warehouse)) == []


def start(shop, *arguments):
    command = [str(Path(sys.executable).parent / "sidlake"), *arguments, "-w", str(shop.warehouse), "-r", str(shop.recipe)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for(process, path, seconds=600):
    end = time.monotonic() + seconds
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


def test_a_run_while_another_process_is_writing_is_refused_and_names_it(shop_copy):
    with Warehouse(shop_copy.warehouse).writing("first"):
        done = shop_copy.sidlake("run", "retrain", check=False)
    assert done.returncode == 1
    assert "WarehouseBusy" in done.stderr
    assert str(os.getpid()) in done.stderr
    assert len(history(Warehouse(shop_copy.warehouse))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("table", ["semantic_ids"])  # test_faults_kill kills at random moments, on a smaller catalogue
def test_a_killed_run_publishes_nothing_and_the_next_one_finishes(fresh_shop, shop, table):
    run = start(fresh_shop, "run", "retrain")
    wait_for(run, fresh_shop.warehouse / "delta" / table)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert history(Warehouse(fresh_shop.warehouse)) == []
    fresh_shop.run("retrain")
    assert current(Warehouse(fresh_shop.warehouse)).content_hash == current(Warehouse(shop.warehouse)).content_hash


def test_a_warehouse_path_that_is_a_file_is_a_named_error(shop, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = shop.sidlake("run", "retrain", "--warehouse", str(tmp_path / "file"), check=False)
    assert done.returncode == 1
    assert "StorageError" in done.stderr


def test_duckdb_reads_the_catalogue_read_only(shop):
    with duckdb.connect(str(shop.warehouse / "catalog.duckdb"), read_only=True) as connection, pytest.raises(duckdb.Error):
        connection.execute("create table x as select 1")
