"""docs/restoring.md: what is copied is enough, also when a release is published meanwhile, and a damaged copy is named."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sidlake.reports.verification import check_release
from sidlake.warehouse.catalog import query
from sidlake.warehouse.outlets.lookup import open_lookup
from sidlake.warehouse.releases import get
from sidlake.warehouse.tables import Warehouse

PAGE = (Path(__file__).parent.parent / "docs" / "restoring.md").read_text(encoding="utf-8")
COPIED = ("delta", "artifacts", "checkpoints")


def copy_all_but_releases(lake, backup):
    for name in COPIED:
        shutil.copytree(
            lake / name,
            backup / name,
            ignore=lambda folder, _: ["releases"] if folder == str(lake / "delta") else [],
            dirs_exist_ok=True,
        )


def test_the_page_names_what_is_copied_here():
    assert set(re.findall(r"`(\w+)/`", PAGE.split("are the data")[1].split("All else")[0])) == set(COPIED)


@pytest.fixture(scope="module")
def restored(shop, tmp_path_factory):
    """A backup that was begun before a release and ended after it, put back at the same place."""
    folder = tmp_path_factory.mktemp("restored")
    shutil.copytree(shop.recipe.parent, folder / "source")
    shutil.copytree(shop.warehouse, folder / "warehouse")
    mine, backup = replace(shop, recipe=folder / "source" / shop.recipe.name, warehouse=folder / "warehouse"), folder / "backup"
    shutil.copytree(mine.warehouse / "delta" / "releases", backup / "delta" / "releases")
    before = get(Warehouse(mine.warehouse))
    mine.run("retrain", recipe=other_settings(mine))
    assert get(Warehouse(mine.warehouse)).release_id != before.release_id
    copy_all_but_releases(mine.warehouse, backup)
    shutil.rmtree(mine.warehouse)
    backup.rename(mine.warehouse)
    return mine, before


def other_settings(shop):
    recipe = shop.recipe.with_name("other.toml")
    text = shop.recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace("weight = 0.7", "weight = 0.6"), encoding="utf-8")
    return recipe


def test_a_copy_begun_before_a_release_is_the_release_before_and_whole(restored):
    shop, before = restored
    lake = Warehouse(shop.warehouse)
    assert get(lake).content_hash == before.content_hash
    assert check_release(lake)["broken"] == []
    assert query(lake, "SELECT count(*) AS n FROM semantic_ids").to_pylist() == [
        {"n": lake.num_rows("items", before.tables["items"])}
    ]
    with open_lookup(lake) as lookup:
        assert lookup.item(query(lake, "SELECT item_id FROM items LIMIT 1").to_pylist()[0]["item_id"]) is not None


def test_a_copy_that_lacks_a_file_is_named(restored):
    shop, before = restored
    lake = Warehouse(shop.warehouse)
    file = Path(lake.files("semantic_ids", version=before.tables["semantic_ids"])[0])
    elsewhere = file.rename(file.with_suffix(".away"))
    assert any(file.name in str(broken) for broken in check_release(lake)["broken"])
    elsewhere.rename(file)


def test_runs_go_on_from_a_restored_copy(restored):
    shop, before = restored
    reports = {report.step: report for report in shop.run("refresh")}
    assert reports["embed_text"].details.get("embedded", 0) == 0
    lake = Warehouse(shop.warehouse)
    assert get(lake).generation == before.generation
    shop.run("retrain", recipe=other_settings(shop))
    assert check_release(lake)["broken"] == []
    assert get(lake).generation != before.generation
