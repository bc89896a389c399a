"""The benchmark over published semantic IDs: our figures are their authors' figures, and a wrong one is noticed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidlake.quality.assignment import Assignment
from sidlake.quality.metrics.hit_rate import embedding_hit_rate
from sidlake.quality.metrics.sessions import Sessions

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "benchmarks" / "published_sids.py"


def load():
    spec = importlib.util.spec_from_file_location("published_sids", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


published_sids = load()
BEAUTY = next((path for path in published_sids.DATA if (path / "sids.parquet").is_file()), None)
needs_beauty = pytest.mark.skipif(BEAUTY is None, reason="Amazon Beauty may not be redistributed and is not here: data/README.md")


@pytest.fixture(scope="module")
def rows():
    return {
        assignment.name: published_sids.measure_codes(assignment, published)
        for assignment, published in published_sids.published_assignments(BEAUTY)
    }


@needs_beauty
def test_all_23_assignments_are_measured(rows):
    assert len(rows) == 23
    assert {row["items"] for row in rows.values()} == {12_101}


@needs_beauty
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


@needs_beauty
def test_leaf_gini_of_two_assignments_is_the_known_one(rows):
    assert round(rows["letter_tiger"]["leaf_gini"], 4) == 0.0011
    assert round(rows["collision_rkmeans_native"]["leaf_gini"], 4) == 0.1209


@needs_beauty
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


@needs_beauty
def test_the_command_prints_a_list_and_exits_1_where_a_figure_differs(tmp_path, capsys):
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
    assert published_sids.main(["--json", "--codes-only", "--data", str(BEAUTY)]) == 0
    assert [row["assignment"] for row in json.loads(capsys.readouterr().out) if row["confirmed"] is False] == []
    command = [sys.executable, str(FILE), "--json", "--codes-only", "--data"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [row["assignment"] for row in json.loads(done.stdout) if row["confirmed"] is False] == ["unigenrec_text.rqkmeans"]
    assert "'what': 'unique', 'ours': 10937, 'theirs': 10938" in done.stderr


def reference_and_clusters(num_items=120):
    rng = np.random.default_rng(0)
    cluster_N = rng.integers(0, 6, num_items)
    x_ND = (rng.normal(size=(6, 5))[cluster_N] + 0.3 * rng.normal(size=(num_items, 5))).astype(np.float32)
    items = rng.integers(0, num_items, 100)
    targets = np.array([rng.choice(np.flatnonzero(cluster_N == cluster_N[item])) for item in items])
    sessions = Sessions(items_flat=items, offsets=np.arange(101), targets=targets)
    reference = published_sids.Reference(
        statement="made",
        item_ids=pa.array([str(item) for item in range(num_items)]),
        x_ND=x_ND,
        sessions=sessions,
        raw=embedding_hit_rate(x_ND, sessions, k=published_sids.K),
    )
    return reference, cluster_N


def assignment_of(codes_N, item_ids):
    codes_NL = codes_N.astype(np.int32).reshape(len(codes_N), -1)
    return Assignment(name="made", item_ids=item_ids, codes_NL=codes_NL, widths=tuple((codes_NL.max(axis=0) + 1).tolist()))


def test_a_code_per_item_keeps_every_vector_and_dealt_at_random_too():
    reference, _ = reference_and_clusters()
    found = published_sids.measure_vectors(assignment_of(np.arange(120), reference.item_ids), reference)
    assert found["ehr_reconstructed"] == found["ehr_raw"] == found["shuffled_ehr"] > 2 * found["ehr_random_floor"]
    assert found["relative_reconstruction_error"] == pytest.approx(0, abs=1e-12)
    assert found["held_out_error"] > 1  # and what it says of items left out shows it up


def test_codes_that_mean_something_are_told_from_the_same_codes_dealt_at_random():
    reference, cluster_N = reference_and_clusters()
    found = published_sids.measure_vectors(assignment_of(cluster_N, reference.item_ids), reference)
    assert found["relative_reconstruction_error"] < found["held_out_error"] < 0.3 < 0.9 < found["shuffled_error"]
    assert found["ehr_tie_rate"] > 0.5


def test_items_are_matched_by_identifier():
    reference, cluster_N = reference_and_clusters()
    order = np.random.default_rng(1).permutation(120)
    moved = assignment_of(cluster_N[order], reference.item_ids.take(pa.array(order)))
    assert published_sids.measure_vectors(moved, reference) == published_sids.measure_vectors(
        assignment_of(cluster_N, reference.item_ids), reference
    )


def test_more_levels_than_are_compared_are_measured_both_ways():
    reference, cluster_N = reference_and_clusters()
    codes_NL = np.column_stack([cluster_N, np.random.default_rng(2).integers(0, 4, (120, 5))])
    found = published_sids.measure_vectors(assignment_of(codes_NL, reference.item_ids), reference)
    assert (found["first_levels"], found["refit_levels"]) == (4, 6)
    few = published_sids.measure_vectors(assignment_of(codes_NL[:, :4], reference.item_ids), reference)
    assert found["first_levels_ehr"] == few["ehr_reconstructed"]
    assert found["relative_reconstruction_error"] < found["first_levels_error"] == few["relative_reconstruction_error"]
