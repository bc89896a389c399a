"""The benchmark of scale, on a shop of a few hundred items: the real command line runs, and each step has its figures."""

import sys

import pyarrow.parquet as pq
import pytest
from scale import growth, measured, shown
from scaling import catalogue
from scaling.catalogue import Shop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    one = measured(400, 2_000, new=(40, 200), folder=folder)
    assert not list(folder.iterdir())  # the temporary folder is cleaned up
    return one


def test_each_job_reports_seconds_memory_and_bytes_of_every_step(found):
    rows = {(row["job"], row["step"]): row for row in found["steps"]}
    assert {"ingest", "fuse", "fit", "assign", "check", "release", "all"} <= {step for job, step in rows if job == "retrain"}
    for job in ("retrain", "refresh", "again"):
        of_job = [row for (name, step), row in rows.items() if name == job and step != "all"]
        assert rows[job, "all"]["peak_bytes"] == max(row["peak_bytes"] for row in of_job) > 100 * 2**20
        assert rows[job, "all"]["written_bytes"] == sum(row["written_bytes"] for row in of_job)
        assert rows[job, "all"]["cpu_seconds"] == pytest.approx(sum(row["cpu_seconds"] for row in of_job))
        assert rows[job, "all"]["cpu_seconds"] > 0.5
    assert rows["retrain", "ingest"]["written_bytes"] > rows["again", "ingest"]["written_bytes"]
    assert rows["again", "all"]["written_bytes"] < rows["refresh", "all"]["written_bytes"]
    assert found["warehouse_bytes"] > 0
    assert "refresh  assign" in shown({"machine": {}, "runs": [found], "growth": []})


def test_growth_is_the_slope_over_the_sizes():
    def run(items):
        row = {
            "job": "retrain",
            "step": "fit",
            "cpu_seconds": items**1.5 / 1000,
            "peak_bytes": 10**6 + 40 * items,
            "written_bytes": 8 * items,
        }
        return {"items": items, "steps": [row]}

    (row,) = growth([run(1_000), run(2_000), run(4_000)])
    assert (row["exponent"], row["peak_bytes_per_item"], row["written_per_item"]) == (1.5, 40, 8)
    assert growth([run(1_000)]) == []


def test_a_shop_has_the_size_asked_for_in_pieces_and_grows_by_a_day(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "PIECE", 64)
    Shop(folder=tmp_path).write(150, 1_000)
    Shop(folder=tmp_path).grow(known=150, items=10, events=30)

    def rows(pattern):
        return sum(pq.read_metadata(file).num_rows for file in tmp_path.glob(pattern))

    assert (rows("items/*"), rows("events/*"), rows("vectors.parquet")) == (160, 1_030, 160)
    assert pq.read_metadata(tmp_path / "items/first.parquet").num_row_groups == 3
    ids = pq.read_table(tmp_path / "vectors.parquet")["item_id"].to_pylist()
    assert ids == [f"item-{row:09d}" for row in range(160)]


def test_few_items_have_most_events(tmp_path):
    Shop(folder=tmp_path).write(500, 20_000)
    taken = pq.read_table(tmp_path / "events")["item_id"].value_counts().field("counts").to_pylist()
    assert sum(sorted(taken)[-50:]) > 0.3 * 20_000
