"""SIDs that somebody else made become a generation like any other: the same codes, the laws, new items beside them."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from sidlake.cli.app import app
from sidlake.warehouse.codes import verify_stored_codes
from sidlake.warehouse.ledger import taken
from sidlake.warehouse.releases import current, history
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))
WIDTHS = (6, 8, 10)


@pytest.fixture
def shop(tmp_path):
    """A shop of 60 items that has run once, and SIDs of another's making for all but the last two."""
    recipe = SAMPLE.write_shop(tmp_path)
    draw = np.random.default_rng(5)
    codes = np.unique(draw.integers(0, WIDTHS, size=(400, 3)), axis=0)
    codes = codes[draw.permutation(len(codes))[:58]]
    found = SimpleNamespace(folder=tmp_path, recipe=recipe, lake=tmp_path / "w")
    found.given = {f"I{row:03d}": code for row, code in enumerate(codes.tolist())}
    assert sidlake(found, "run", "refresh", code=1) is not None  # there is nothing to refresh yet
    assert sidlake(found, "run", "retrain") is not None
    return found


def sidlake(shop, *words, code=0):
    ends = ["--warehouse", str(shop.lake), "--recipe", str(shop.recipe), "--json"]
    done = CliRunner().invoke(app, [*words, *ends])
    assert done.exit_code == code, (done.output, done.exception)
    return json.loads(done.stdout) if code == 0 else f"{done.output} {done.exception}"


def written(shop, sids):
    file = shop.folder / "theirs.index.json"
    file.write_text(json.dumps({item: [f"<{'abc'[level]}_{one}>" for level, one in enumerate(row)] for item, row in sids.items()}))
    return file


def publish(shop, sids, *, code=0):
    file = written(shop, sids)
    widths = [word for width in WIDTHS for word in ("--width", str(width))]
    return sidlake(shop, "import", str(file), "--format", "index_json", "--name", "theirs", *widths, "--publish", code=code)


def sids(shop):
    lake = Warehouse(shop.lake)
    rows = lake.read("semantic_ids", version=current(lake).tables["semantic_ids"]).to_pylist()
    return {row["item_id"]: row for row in rows}


def test_the_given_codes_are_published_and_items_without_any_get_free_ones(shop):
    about = publish(shop, shop.given)
    found = sids(shop)
    assert (about["generation"], about["release"]) == ("g0002", "r000002")
    assert {item: row["codes"] for item, row in found.items() if item in shop.given} == shop.given
    assert len({tuple(row["codes"]) for row in found.values()}) == len(found) == 60
    release = current(Warehouse(shop.lake))
    assert release.reason == "retrain small: SIDs of theirs"
    assert len(taken(Warehouse(shop.lake), "g0002")) == 60


def test_they_are_held_against_vectors_like_any_other(shop):
    publish(shop, shop.given)
    lake = Warehouse(shop.lake)
    release = current(lake)
    about = {"generation": release.generation, "encoders": release.encoders, "digest": release.codebook_hash}
    assert verify_stored_codes(lake, release.tables, **about) == 60


def test_a_refresh_leaves_them_where_they_are_and_gives_new_items_theirs(shop):
    publish(shop, shop.given)
    before = {item: row["sid"] for item, row in sids(shop).items()}
    items = pl.read_parquet(shop.folder / "items.parquet")
    new = pl.DataFrame([{"item_id": "NEW", "title": "golden mug", "price": 9.0}])
    pl.concat([items, new]).write_parquet(shop.folder / "items.parquet")
    sidlake(shop, "run", "refresh")
    after = {item: row["sid"] for item, row in sids(shop).items()}
    assert after.pop("NEW") not in before.values()
    assert after == before


def test_given_sids_that_collide_are_told_apart_and_who_moved_is_on_record(shop):
    twice = shop.given | {"I001": shop.given["I000"]}
    publish(shop, twice)
    found = sids(shop)
    moved = [item for item in ("I000", "I001") if found[item]["moved"]]
    assert len(moved) == 1
    assert found[moved[0]]["raw_codes"] == shop.given["I000"] != found[moved[0]]["codes"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda given: {item: [0, *row[1:]] for item, row in given.items()}, "level_largest_share"),
        (lambda given: given | {"STRANGER": [0, 0, 0]}, "STRANGER"),
    ],
)
def test_collapsed_sids_and_those_of_strangers_are_refused_and_nothing_is_published(shop, change, says):
    assert says in publish(shop, change(shop.given), code=1)
    assert len(history(Warehouse(shop.lake))) == 1


def test_without_a_recipe_there_is_no_catalogue_to_publish_for(shop):
    words = ["import", "none.json", "--format", "index_json", "--name", "theirs", "--publish", "--warehouse", str(shop.lake)]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, "name its recipe" in done.output) == (2, True)


def test_imported_sids_stand_in_a_comparison_beside_methods(shop):
    (shop.folder / "methods").mkdir()
    ours = 'name = "ours"\nsource = "a test"\n[tokenizer]\nkind = "residual_kmeans"\n'
    (shop.folder / "methods" / "ours.toml").write_text(ours)
    file = shop.folder / "theirs.index.json"
    file.write_text(
        json.dumps({item: [f"<{'abc'[level]}_{one}>" for level, one in enumerate(row)] for item, row in shop.given.items()})
    )
    words = ["import", str(file), "--format", "index_json", "--name", "theirs", "--warehouse", str(shop.lake), "--json"]
    assert CliRunner().invoke(app, [*words, *(word for width in WIDTHS for word in ("--width", str(width)))]).exit_code == 0
    ours, theirs = sidlake(shop, "compare", "ours", "theirs")
    assert (theirs["method"], theirs["status"], theirs["kind"], theirs["widths"]) == ("theirs", "ok", "imported", "6x8x10")
    assert theirs["unique_share"] == ours["unique_share"] == 1.0
    assert theirs["reconstruction_error"] > ours["reconstruction_error"]  # dealt by chance
    assert len(history(Warehouse(shop.lake))) == 1
