"""Whole runs on a warehouse in an object store: the same releases as in a folder, by the command line and by Dagster."""

import shlex

import assets_sample
import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from sidlake.assets.launch import launch
from sidlake.cli.app import app
from sidlake.errors import NotFoundError
from sidlake.pipelines.recipe import digest_of, load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.pipelines.train import train_recommender
from sidlake.warehouse.releases import get, history
from sidlake.warehouse.tables import Warehouse

pytest.importorskip("moto", reason="moto is not installed: pip install 'sidlake[dev]'")

RECIPE = """
name = "tiny"
[sources.items]
path = "items.parquet"
[items]
source = "items"
item_id = "id"
title = { column = "name" }
[encoders.precomputed.graph]
path = "graph.npy"
ids_path = "ids.txt"
[encoders.fusion.graph]
dim = 4
[tokenizer]
widths = [4, 4, 4]
"""


@pytest.fixture
def another_machine(object_store, tmp_path, monkeypatch):
    """What is kept on this machine for a warehouse is not there on another."""
    monkeypatch.setenv("SIDLAKE_CACHE", str(tmp_path / "another machine"))


def write_source(folder, num):
    names = [f"i{number:03}" for number in range(num)]
    pl.DataFrame({"id": names, "name": names}).write_parquet(folder / "items.parquet")
    np.save(folder / "graph.npy", np.random.default_rng(0).standard_normal((24, 6)).astype(np.float32)[:num])
    (folder / "ids.txt").write_text("\n".join(names))
    (folder / "recipe.toml").write_text(RECIPE)


def run(folder, address, job):
    lake = Warehouse.create_or_open(address)
    run_job(RunContext.open(lake, load_recipe(folder / "recipe.toml"), run_id=new_run_id(), job=job))
    return lake


def sids(lake):
    rows = lake.read("semantic_ids", version=get(lake).tables["semantic_ids"], columns=["item_id", "sid"])
    return {row["item_id"]: row["sid"] for row in rows.to_pylist()}


@pytest.fixture(scope="module")
def shop(object_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_source(folder, 20)
    return folder, run(folder, "s3://shop/tiny", "retrain")


def test_a_release_has_the_same_content_hash_in_a_folder_and_in_a_store(shop, tmp_path):
    folder, lake = shop
    assert get(run(folder, tmp_path / "local", "retrain")).content_hash == get(lake).content_hash


def test_dagster_publishes_there_what_the_command_line_does(shop):
    folder, lake = shop
    resource = assets_sample.resource("s3://shop/dagster", folder / "recipe.toml")
    with assets_sample.instance() as instance:
        assert launch("retrain", resource, instance) == []
    (release,) = history(resource.open_warehouse())
    assert release.content_hash == get(lake, "r000001").content_hash


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ('query "SELECT count(*) AS items FROM semantic_ids" --json', '"items": 20'),
        ("diff r000001", "the same content, by its hash"),
        ("lineage i001 --json", '"release": "r000001"'),
        ("pin prod r000001", "prod points at r000001"),
        ("pins", "pins"),
        ("check --json", '"release": "r000001"'),
        ("vacuum --dry-run", "among the last 10"),
    ],
)
def test_the_command_line_takes_the_address(shop, command, told):
    done = CliRunner().invoke(app, [*shlex.split(command), "-w", shop[1].url], catch_exceptions=False)
    assert done.exit_code == 0
    assert told in done.output


def test_a_report_is_written_where_it_is_asked_for_and_otherwise_kept_in_the_store(shop, tmp_path):
    _, lake = shop
    done = CliRunner().invoke(app, ["report", "-w", lake.url, "-o", str(tmp_path / "page.html")], catch_exceptions=False)
    assert done.exit_code == 0
    stored = lake.location.filesystem.open_input_stream(f"{lake.url[5:]}/reports/r000001.html").read()
    assert b"r000001" in stored
    assert b"r000001" in (tmp_path / "page.html").read_bytes()


@pytest.mark.parametrize("command", ["show r000009", "pin x r000009", "unpin x", "diff r000009"])
def test_what_is_not_there_is_missed_in_the_store_not_in_the_folder_beside_it(shop, command):
    done = CliRunner().invoke(app, [*command.split(), "-w", shop[1].url])
    assert isinstance(done.exception, NotFoundError)
    assert str(shop[1].root) not in str(done.exception)
    if command != "show r000009":  # which may be an item
        assert shop[1].url in str(done.exception)


def test_a_checkpoint_whose_upload_was_cut_short_is_uploaded_by_the_next_run(shop, tmp_path):
    _, lake = shop
    recipe = load_recipe(assets_sample.write_shop(tmp_path, more=assets_sample.INTERACTIONS + assets_sample.TRAINER))
    folder = lake.checkpoints_dir / f"r000001-{digest_of(recipe.trainer)[:12]}"
    folder.mkdir()
    (folder / "model.safetensors").write_text("weights")
    report = train_recommender(RunContext.open(lake, recipe, run_id=new_run_id(), job="retrain"))
    assert (report.skipped, report.details) == (True, {"checkpoint": folder.name})
    assert lake.location.is_kept(folder)
    lake.location.filesystem.delete_dir(f"{lake.url[5:]}/checkpoints/{folder.name}")


def test_an_address_without_a_warehouse_is_named(object_store):
    done = CliRunner().invoke(app, ["releases", "-w", "s3://shop/no warehouse here"])
    assert done.exit_code == 2
    assert "s3://shop/no warehouse here" in done.stderr


def test_another_machine_carries_on_with_the_codebooks_of_the_store(shop, another_machine):
    folder, lake = shop
    before = sids(lake)
    write_source(folder, 21)
    after = sids(run(folder, lake.url, "refresh"))
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"i020"}
