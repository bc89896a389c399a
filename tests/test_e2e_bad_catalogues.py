"""Catalogues at the edge: each ends in unique SIDs or in one named error with nothing published."""

import os
import subprocess
from pathlib import Path

import polars as pl
import pytest

from sidlake.errors import ArtifactError, CapacityError, EncoderError, FitError, StorageError
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext
from sidlake.pipelines.steps import run_job
from sidlake.warehouse.releases import current, get, history
from sidlake.warehouse.tables import Warehouse

RECIPE = """
name = "tiny"
[sources.items]
path = "items.parquet"
[items]
source = "items"
item_id = "id"
title = { column = "name" }
[encoders.fusion.text]
dim = 16
"""


def run(folder, names, *, extra="", warehouse=None, job="retrain"):
    """Run a text-only catalogue through all steps; return its warehouse."""
    ids = [f"i{number:03}" for number in range(len(names))]
    pl.DataFrame({"id": ids, "name": names}).write_parquet(folder / "items.parquet")
    (folder / "recipe.toml").write_text(RECIPE + extra)
    lake = Warehouse.create_or_open(warehouse or folder / "warehouse")
    run_id = f"run-{len(history(lake))}"
    run_job(RunContext.open(lake, load_recipe(folder / "recipe.toml"), run_id=run_id, job=job))
    return lake


def sids(lake):
    rows = lake.read("semantic_ids", version=get(lake).tables["semantic_ids"], columns=["item_id", "sid", "moved"])
    return rows.to_pylist()


def names_of(num):
    return [
        f"{colour} {thing} {number}"
        for number in range(num // 9 + 1)
        for colour in ("red", "blue", "green")
        for thing in ("cup", "lamp", "bag")
    ][:num]


def test_items_with_the_same_text_get_different_sids(tmp_path):
    rows = sids(run(tmp_path, ["red cup"] * 20 + names_of(20)))
    assert len({row["sid"] for row in rows}) == 40
    assert sum(row["moved"] for row in rows) >= 19


def test_two_items_are_enough(tmp_path):
    assert len({row["sid"] for row in sids(run(tmp_path, ["red cup", "blue lamp"]))}) == 2


@pytest.mark.parametrize("names", [["only one"], ["all the same"] * 30], ids=["one item", "all identical"])
def test_a_catalogue_without_two_different_vectors_is_a_named_error(tmp_path, names):
    with pytest.raises(EncoderError, match="differ"):
        run(tmp_path, names)
    assert history(Warehouse(tmp_path / "warehouse")) == []


def test_fewer_items_than_codes_is_a_named_error(tmp_path):
    with pytest.raises(FitError, match="64"):
        run(tmp_path, names_of(20), extra="[tokenizer]\nwidths = [64, 64]\n")
    assert history(Warehouse(tmp_path / "warehouse")) == []


def test_more_items_than_sids_is_a_named_error(tmp_path):
    with pytest.raises(CapacityError, match="16"):
        run(tmp_path, names_of(20), extra="[tokenizer]\nwidths = [4, 4]\n")
    assert history(Warehouse(tmp_path / "warehouse")) == []


def test_a_model_folder_that_is_none_is_a_named_error(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(EncoderError, match="model"):
        run(tmp_path, names_of(5), extra=f'[encoders.text]\nmodel = "{tmp_path / "model"}"\n')


def test_an_item_that_leaves_the_source_keeps_its_sid(tmp_path):
    before = {row["item_id"]: row["sid"] for row in sids(run(tmp_path, names_of(30)))}
    after = {row["item_id"]: row["sid"] for row in sids(run(tmp_path, names_of(25), job="refresh"))}
    assert after == before


def test_a_changed_text_keeps_its_sid_within_the_generation(tmp_path):
    before = {row["item_id"]: row["sid"] for row in sids(run(tmp_path, names_of(30)))}
    lake = run(tmp_path, ["something else", *names_of(30)[1:]], job="refresh")
    assert {row["item_id"]: row["sid"] for row in sids(lake)} == before
    assert current(lake).release_id == "r000002"


def test_retrain_after_a_change_starts_a_new_generation(tmp_path):
    run(tmp_path, names_of(30))
    lake = run(tmp_path, names_of(36))
    assert [release.generation for release in history(lake)] == ["g0001", "g0002"]
    assert len(sids(lake)) == 36


def test_a_damaged_codebook_is_found_before_it_is_used(tmp_path):
    lake = run(tmp_path, names_of(30))
    (path,) = lake.artifacts_dir.glob("g0001/*/codebook.safetensors")
    path.write_bytes(path.read_bytes()[:-40])
    pl.DataFrame({"id": ["a", "b"], "name": ["new", "newer"]}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ArtifactError, match=r"codebook\.safetensors"):
        run_job(RunContext.open(lake, load_recipe(tmp_path / "recipe.toml"), run_id="after-the-damage", job="refresh"))
    assert len(history(lake)) == 1


@pytest.mark.parametrize("megabytes", [2, 3])
def test_a_full_disk_is_a_named_error_and_publishes_nothing(tmp_path, megabytes):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        filler = small / "filler"
        filler.write_bytes(os.urandom(megabytes * 1_000_000 - 40_000))
        with pytest.raises(StorageError, match=r"(?i)space|disk"):
            run(tmp_path, names_of(60), warehouse=small / "warehouse")
        filler.unlink()
        assert len(sids(run(tmp_path, names_of(60), warehouse=small / "warehouse"))) == 60
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_a_read_only_warehouse_is_a_named_error(tmp_path):
    (tmp_path / "warehouse").mkdir()
    frozen = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(tmp_path / "warehouse")], capture_output=True, check=False
    )
    if frozen.returncode:
        pytest.skip("mounting a read-only folder needs root")
    try:
        with pytest.raises(StorageError, match=r"(?i)read-only|writ"):
            run(tmp_path, names_of(5))
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path / "warehouse")], check=True)


def test_the_run_folder_is_gone_after_a_failure(tmp_path):
    with pytest.raises(FitError):
        run(tmp_path, names_of(20), extra="[tokenizer]\nwidths = [64, 64]\n")
    assert not list(Path(tmp_path / "warehouse" / "runs").glob("*"))
