"""The other two catalogues run by their recipes alone: emoji (no interactions) and, where it is at hand, Amazon Beauty."""

import shutil
from pathlib import Path

import pytest

from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.warehouse.catalog import query
from sidlake.warehouse.tables import Warehouse

ROOT = Path(__file__).parent.parent
BEAUTY = next((path for path in (ROOT / "data" / "beauty", ROOT.parent / "shared" / "data" / "beauty") if path.exists()), None)
UNIQUE = "select count(*) as items, count(distinct sid) as sids from semantic_ids"


def run(recipe, folder):
    lake = Warehouse.create_or_open(folder / "warehouse")
    run_job(RunContext.open(lake, load_recipe(recipe), run_id=new_run_id(), job="retrain"))
    return lake


@pytest.mark.slow
def test_the_emoji_catalogue_becomes_unique_sids(tmp_path):
    lake = run(ROOT / "recipes" / "emoji.toml", tmp_path)
    assert query(lake, UNIQUE).to_pylist() == [{"items": 1609, "sids": 1609}]
    assert query(lake, "select count(*) as n from interactions").to_pylist() == [{"n": 0}]


@pytest.mark.slow
@pytest.mark.skipif(BEAUTY is None, reason="Amazon Beauty may not be redistributed: put it into data/beauty (data/README.md)")
def test_amazon_beauty_becomes_unique_sids_that_keep_half_of_the_hit_rate_above_chance(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "recipes" / "beauty.toml", tmp_path / "recipes")
    (tmp_path / "data" / "beauty").symlink_to(BEAUTY)
    lake = run(tmp_path / "recipes" / "beauty.toml", tmp_path)
    assert query(lake, UNIQUE).to_pylist() == [{"items": 12101, "sids": 12101}]
    rows = query(lake, "select metric, value from sid_quality where metric like 'ehr_%' and level is null").to_pylist()
    rates = {row["metric"]: row["value"] for row in rows}
    assert 0.01 < rates["ehr_random_floor"] < 0.02
    assert rates["ehr_reconstructed"] - rates["ehr_random_floor"] > (rates["ehr_raw"] - rates["ehr_random_floor"]) / 2
