"""The benchmark over published semantic IDs: our figures are their authors' figures, and a wrong one is noticed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "benchmarks" / "published_sids.py"


def load():
    spec = importlib.util.spec_from_file_location("published_sids", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


published_sids = load()
BEAUTY = next((path for path in published_sids.DATA if (path / "sids.parquet").is_file()), None)
pytestmark = pytest.mark.skipif(BEAUTY is None, reason="Amazon Beauty may not be redistributed and is not here: data/README.md")


@pytest.fixture(scope="module")
def rows():
    return {
        assignment.name: published_sids.measure_codes(assignment, published)
        for assignment, published in published_sids.published_assignments(BEAUTY)
    }


def test_all_23_assignments_are_measured(rows):
    assert len(rows) == 23
    assert {row["items"] for row in rows.values()} == {12_101}


def test_every_figure_that_authors_published_is_ours(rows):
    files = list((BEAUTY / "unigenrec_metrics").glob("*.json"))
    assert len(files) == 11
    for file in files:
        theirs = json.loads(file.read_text(encoding="utf-8"))
        row = rows["unigenrec_" + file.name.removesuffix(".metrics.json")]
        assert (row["unique"], row["duplicates"]) == (theirs["sid"]["unique_count"], theirs["sid"]["duplicate_count"])
        assert [level["used"] for level in row["per_level"]] == [layer["used_tokens"] for layer in theirs["layers"]]
        assert [level["utilisation"] for level in row["per_level"]] == [layer["utilization"] for layer in theirs["layers"]]
        assert [level["entropy"] for level in row["per_level"]] == pytest.approx(
            [layer["entropy"] for layer in theirs["layers"]], abs=1e-12
        )
        assert row["confirmed"] is True
        assert len(row["compared"]) == 7 + 5 * len(theirs["layers"])


def test_leaf_gini_of_two_assignments_is_the_known_one(rows):
    assert round(rows["letter_tiger"]["leaf_gini"], 4) == 0.0011
    assert round(rows["collision_rkmeans_native"]["leaf_gini"], 4) == 0.1209


def test_exactly_what_authors_added_is_stripped(rows):
    raw = pq.read_table(BEAUTY / "sids.parquet", columns=["method", "codes"])
    lengths = {name: len(codes) for name, codes in zip(raw["method"].to_pylist(), raw["codes"].to_pylist(), strict=True)}
    shorter = {name for name, row in rows.items() if row["levels"] < lengths[name]}
    assert shorter == {name for name, row in rows.items() if row["stripped"]}
    assert shorter == {
        "unigenrec_text.rqkmeans",
        "unigenrec_text.rqvae_faiss",
        "unigenrec_text.rqvae",
        "unigenrec_graph-lightgcn.rqkmeans_plus",
        "unigenrec_graph-lightgcn.rqvae_faiss",
    }


def test_the_command_prints_a_list_and_exits_1_where_a_figure_differs(tmp_path):
    for file in BEAUTY.iterdir():
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)
    (tmp_path / "unigenrec_metrics").mkdir()
    for file in (BEAUTY / "unigenrec_metrics").iterdir():
        text = file.read_text(encoding="utf-8")
        changed = (
            text.replace('"unique_count": 10937', '"unique_count": 10938') if file.name == "text.rqkmeans.metrics.json" else text
        )
        (tmp_path / "unigenrec_metrics" / file.name).write_text(changed, encoding="utf-8")
    command = [sys.executable, str(FILE), "--json", "--codes-only", "--data"]
    done = subprocess.run([*command, str(BEAUTY)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["assignment"] for row in json.loads(done.stdout) if row["confirmed"] is False] == []
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [row["assignment"] for row in json.loads(done.stdout) if row["confirmed"] is False] == ["unigenrec_text.rqkmeans"]
    assert "'what': 'unique', 'ours': 10937, 'theirs': 10938" in done.stderr
