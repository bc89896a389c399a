"""The catalogue: what an analyst sees with nothing but DuckDB, of either major version."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pyarrow as pa
import pytest

from sidlake.errors import NotFoundError, StorageError
from sidlake.warehouse.catalog import connect, is_current, query, write_catalog
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.keep.pins import pin, unpin
from sidlake.warehouse.releases import publish, rollback
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("warehouse_sample.py"))))
VIEWS = {
    "semantic_ids": 15, "items": 15, "items_with_sids": 15, "interactions": 15, "rejected_rows": 0, "sid_quality": 1,
    "codebooks": 12,
    "user_sequences": 1, "sid_trie": 20, "item_embeddings": 0, "model_metrics": 1, "recommendations": 1, "releases": 3,
    "sid_changes": 12, "code_changes": 11, "sid_features": 15, "quality_history": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    """Three releases: twelve items, the same in another generation, then fifteen."""
    warehouse = Warehouse.create_or_open(tmp_path_factory.mktemp("catalogue") / 'it\'s a "house" *')
    publish(warehouse, SAMPLE.draft(SAMPLE.write(warehouse, 12)), expected_parent=None)
    second = SAMPLE.draft(SAMPLE.write(warehouse, 12, skip=1, generation="g2"), generation="g2")
    publish(warehouse, second, expected_parent="r000001")
    third = SAMPLE.draft(SAMPLE.write(warehouse, 15, skip=1, generation="g2"), generation="g2")
    publish(warehouse, third, expected_parent="r000002")
    for release_id, item in (("r000001", "old"), ("r000002", "new"), ("r000099", "unknown")):
        row = {"release_id": release_id, "user_id": "u0", "rank": 1, "item_id": item, "score": -1.0}
        warehouse.append("recommendations", pa.Table.from_pylist([row], CONTRACTS["recommendations"]), run_id="train")
    metric = {"release_id": "r000002", "model": "tiger", "split": "test", "metric": "recall@10", "value": 0.1}
    warehouse.append("model_metrics", pa.Table.from_pylist([metric], CONTRACTS["model_metrics"]), run_id="train")
    write_catalog(warehouse)
    return warehouse


def _rows(warehouse, sql):
    return [tuple(row.values()) for row in query(warehouse, sql).to_pylist()]


def test_every_view_has_the_rows_of_the_current_release(warehouse):
    counts = {view: _rows(warehouse, f"SELECT count(*) FROM {view}")[0][0] for view in VIEWS}
    assert counts == VIEWS


def test_views_have_the_columns_of_the_contracts(warehouse):
    for table, schema in CONTRACTS.items():
        assert query(warehouse, f"SELECT * FROM {table} LIMIT 0").schema.names == schema.names


def test_every_item_has_its_own_sid(warehouse):
    assert _rows(warehouse, "SELECT count(*) = count(DISTINCT sid) FROM semantic_ids") == [(True,)]


def test_both_directions_of_the_mapping_are_macros_whatever_the_columns_are_called(warehouse):
    assert _rows(warehouse, "SELECT sid_of('item ''000\"'), item_of('<a_0><b_0><c_1>'), sid_of('none')") == [
        ("<a_0><b_0><c_1>", "item '000\"", None)
    ]
    assert _rows(warehouse, "SELECT count(*) FROM semantic_ids WHERE sid_of(item_id) = sid AND item_of(sid) = item_id") == [(15,)]


def test_time_travel_shows_each_releases_own_sids(warehouse):
    sql = "SELECT (SELECT count(*) FROM semantic_ids_at('{0}')), (SELECT min(sid) FROM semantic_ids_at('{0}'))"
    seen = [_rows(warehouse, sql.format(release)) for release in ("r000001", "r000002", "r000003")]
    assert seen == [[(12, "<a_0><b_0><c_0>")], [(12, "<a_0><b_0><c_1>")], [(15, "<a_0><b_0><c_1>")]]
    with pytest.raises(ValueError, match="r000009"):
        query(warehouse, "FROM semantic_ids_at('r000009')")


def test_changes_lead_from_the_last_release_of_the_former_generation_to_the_current_one(warehouse):
    rows = _rows(warehouse, "FROM sid_changes ORDER BY item_id")
    assert rows[0] == ("item '000\"", "r000001", "g1", "<a_0><b_0><c_0>", "r000003", "g2", "<a_0><b_0><c_1>")
    assert len(rows) == 12  # of fifteen: the other three are new


def test_codes_lead_from_the_former_generation_to_the_current_one_level_by_level(warehouse):
    old, new = (dict(_rows(warehouse, f"SELECT item_id, codes FROM semantic_ids_at('{one}')")) for one in ("r000001", "r000003"))
    pairs = Counter((level, old[item][level], new[item][level]) for item in old.keys() & new.keys() for level in range(3))
    of_new = Counter()
    for (level, _, code), count in pairs.items():
        of_new[level, code] += count
    found = _rows(warehouse, "SELECT level, old_code, new_code, num_items, share FROM code_changes")
    assert {row[:3]: row[3] for row in found} == pairs
    assert all(share == pytest.approx(num / of_new[level, code]) for level, _, code, num, share in found)


def test_the_first_generation_has_no_changes_and_a_rollback_leads_back(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path / "two")
    publish(warehouse, SAMPLE.draft(SAMPLE.write(warehouse, 12)), expected_parent=None)
    publish(warehouse, SAMPLE.draft(SAMPLE.write(warehouse, 13)), expected_parent="r000001")
    assert query(warehouse, "FROM sid_changes").num_rows == query(warehouse, "FROM code_changes").num_rows == 0
    second = SAMPLE.draft(SAMPLE.write(warehouse, 12, skip=1, generation="g2"), generation="g2")
    publish(warehouse, second, expected_parent="r000002")
    rollback(warehouse, "r000001", "test")
    rows = _rows(
        warehouse, "SELECT old_release, old_generation, new_release, new_generation, count(*) FROM sid_changes GROUP BY ALL"
    )
    assert rows == [("r000003", "g2", "r000004", "g1", 12)]


def test_features_are_what_the_codes_begin_with_and_stay_with_an_item_within_its_generation(warehouse):
    rows = _rows(warehouse, "SELECT f.prefixes, s.codes FROM sid_features f JOIN semantic_ids s USING (item_id, generation)")
    begun = [["_".join(map(str, codes[:depth])) for depth in range(1, len(codes) + 1)] for _, codes in rows]
    assert [prefixes for prefixes, _ in rows] == begun
    before = "SELECT item_id, array_to_string(codes, '_') AS whole FROM semantic_ids_at('r000002')"
    same = f"SELECT count(*) FROM ({before}) JOIN sid_features USING (item_id) WHERE prefixes[-1] = whole"
    assert _rows(warehouse, same) == [(12,)]


def test_quality_history_has_every_release(warehouse):
    rows = _rows(warehouse, "SELECT release_id, metric, value, verdict FROM quality_history ORDER BY release_id")
    assert rows == [(f"r00000{number}", "collision_rate", 0.1, "pass") for number in (1, 2, 3)]


def test_recommendations_are_those_of_the_latest_known_release_that_has_any(warehouse):
    assert _rows(warehouse, "SELECT item_id FROM recommendations") == [("new",)]


def test_views_and_columns_carry_the_contracts_comments(warehouse):
    comments = dict(_rows(warehouse, "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'semantic_ids'"))
    assert comments["sid"] == "the SID spelled as tokens: <a_12><b_7><c_33>"
    assert all(comments.values())
    assert all(
        comment for (comment,) in _rows(warehouse, "SELECT comment FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal")
    )


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", "syntax error"),
        ("SELECT nothing FROM items", "nothing"),
        ("COPY items TO '/tmp/out.parquet'", "one SELECT"),
        ("EXPLAIN ANALYZE COPY items TO 'x'", "one SELECT"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("", "one SELECT"),
        ("DROP VIEW items", "one SELECT"),
        ("FROM read_text('/etc/hostname')", "disabled by configuration"),
    ],
)
def test_wrong_sql_is_a_value_error_that_says_why(warehouse, sql, message):
    with pytest.raises(ValueError, match=message):
        query(warehouse, sql)


def test_a_connection_cannot_change_the_catalogue_nor_its_settings(warehouse):
    with connect(warehouse) as connection:
        for sql in ("CREATE TABLE x (i INT)", "SET enable_external_access = true"):
            with pytest.raises(duckdb.Error):
                connection.execute(sql)


def test_before_the_first_release_there_is_no_catalogue(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    for call in (write_catalog, connect):
        with pytest.raises(NotFoundError, match="nothing has been published"):
            call(warehouse)


def test_a_lost_catalogue_is_written_again(warehouse):
    (warehouse.root / "catalog.duckdb").unlink()
    (warehouse.root / "catalog.sql").unlink()
    assert _rows(warehouse, "SELECT count(*) FROM items") == [(15,)]
    assert (warehouse.root / "catalog.sql").exists()


def test_the_script_defines_the_same_views_in_any_database_and_may_be_run_twice(warehouse):
    script = (warehouse.root / "catalog.sql").read_text()
    with duckdb.connect() as connection:
        connection.execute(script)
        connection.execute(script)
        assert connection.execute("SELECT count(*) FROM items_with_sids").fetchall() == [(15,)]


@pytest.fixture
def small(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path / "small")
    publish(warehouse, SAMPLE.draft(SAMPLE.write(warehouse, 3)), expected_parent=None)
    write_catalog(warehouse)
    return warehouse


def test_an_open_connection_keeps_its_release_and_a_new_one_sees_the_next(small):
    with connect(small) as before:
        publish(small, SAMPLE.draft(SAMPLE.write(small, 5)), expected_parent="r000001")
        assert _rows(small, "SELECT count(*) FROM items") == [(5,)]
        assert before.execute("SELECT count(*) FROM items").fetchall() == [(3,)]
    rollback(small, "r000001", "test")
    assert _rows(small, "SELECT count(*) FROM items") == [(3,)]


def test_a_moved_warehouse_answers_from_its_new_place(small, tmp_path):
    shutil.move(small.root, tmp_path / "moved")
    assert _rows(Warehouse(tmp_path / "moved"), "SELECT count(*) FROM items") == [(3,)]


def test_a_missing_data_file_is_a_storage_error(small):
    Path(small.files("items")[0]).unlink()
    with pytest.raises(StorageError, match="damaged"):
        query(small, "SELECT * FROM items")


def _other_duckdb():
    found = os.environ.get("SIDLAKE_OTHER_DUCKDB") or str(Path(__file__).parents[1] / ".venv" / "duckdb-1.x")
    if not (Path(found) / "duckdb").is_dir():
        pytest.skip(f"no other DuckDB in {found}: pip install --target {found} duckdb==1.5.5")
    return found


def test_another_duckdb_version_reads_the_same_catalogue(warehouse):
    script = (
        "import duckdb, json, sys\n"
        "connection = duckdb.connect(sys.argv[1], read_only=True)\n"
        "views = json.loads(sys.argv[2])\n"
        "counts = {view: connection.execute(f'SELECT count(*) FROM {view}').fetchall()[0][0] for view in views}\n"
        "at = connection.execute(\"SELECT count(*) FROM semantic_ids_at('r000001')\").fetchall()[0][0]\n"
        'both = connection.execute("SELECT count(*) FROM semantic_ids WHERE item_of(sid_of(item_id)) = item_id").fetchall()[0][0]\n'
        "print(json.dumps([duckdb.__version__, counts, at, both]))\n"
    )
    database = write_catalog(warehouse)
    command = [sys.executable, "-c", script, str(database), json.dumps(list(VIEWS))]
    result = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": _other_duckdb()}, capture_output=True, text=True, check=True, timeout=120
    )
    version, counts, at, both = json.loads(result.stdout)
    assert version != duckdb.__version__
    assert (counts, at, both) == (VIEWS, 12, 15)


@pytest.fixture
def two_releases(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path / "lake")
    publish(warehouse, SAMPLE.draft(SAMPLE.write(warehouse, 12)), expected_parent=None)
    publish(warehouse, SAMPLE.draft(SAMPLE.write(warehouse, 13)), expected_parent="r000001")
    write_catalog(warehouse)
    return warehouse


def test_a_pin_is_a_name_for_its_release_in_sql_until_it_is_taken_away(two_releases):
    pin(two_releases, "prod", "r000001")
    assert _rows(two_releases, "SELECT count(*) FROM semantic_ids_at('prod')") == [(12,)]
    pin(two_releases, "prod", "r000002")
    assert _rows(two_releases, "SELECT count(*) FROM semantic_ids_at('prod')") == [(13,)]
    unpin(two_releases, "prod")
    with pytest.raises(ValueError, match="prod"):
        query(two_releases, "FROM semantic_ids_at('prod')")


@pytest.mark.parametrize("damage", [b"", b"not a database", b"\0" * 40_000], ids=["empty", "text", "zeros"])
def test_a_damaged_catalogue_is_written_anew_by_the_next_reader(two_releases, damage):
    path = two_releases.root / "catalog.duckdb"
    path.write_bytes(damage)
    assert not is_current(two_releases)
    assert _rows(two_releases, "SELECT count(*) FROM semantic_ids") == [(13,)]
    assert is_current(two_releases)


def test_a_reader_who_cannot_write_the_catalogue_sees_the_pin_that_was_just_set(two_releases):
    pin(two_releases, "prod", "r000001")
    path = two_releases.root / "catalog.duckdb"
    path.unlink()
    (path / "in the way").mkdir(parents=True)  # permissions do not stop root, a folder of this name does
    assert _rows(two_releases, "SELECT count(*) FROM semantic_ids_at('prod')") == [(12,)]
    assert (path / "in the way").is_dir()
