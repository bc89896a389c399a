"""A retrain on changed data: codes keep their names, both generations stay readable, and the changes lead from one to the other."""

import random
import shutil
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.tokenizers.artifact import codebook_hash, load_codebook
from sidlake.tokenizers.generations.relabelled import Relabelled, own_codes
from sidlake.tokenizers.uniqueness.append_digit import AppendDigit
from sidlake.warehouse.catalog import query
from sidlake.warehouse.releases import history
from sidlake.warehouse.tables import Warehouse

COLOURS = ["red", "blue", "green", "white", "pink", "black"]
KINDS = ["mug", "lamp", "candle", "bag", "clock", "card", "plate", "frame", "box", "bell"]
RECIPE = """
name = "small"
[sources.items]
path = "items.parquet"
[items]
source = "items"
item_id = "item_id"
title = { column = "title" }
[sources.events]
path = "events.parquet"
[interactions]
source = "events"
user_id = "user"
item_id = "item_id"
ts = "ts"
[split]
kind = "leave_one_out"
[encoders.text]
precision = "float32"
[encoders.behaviour]
dim = 8
[encoders.fusion.text]
dim = 16
[encoders.fusion.behaviour]
dim = 8
[tokenizer]
widths = [6, 6, 8]
"""


WARM = {"warm_start": True, "uniqueness": "append", "digits": 16}


def write_sources(folder, titles, *, seed):
    """Sixty items or fewer, and users who each like two kinds of things: another draw of them for another seed."""
    draw, events = random.Random(seed), []
    ids = [f"I{row:03d}" for row in titles]
    for user in range(50):
        when, liked = datetime(2026, 1, 1) + timedelta(hours=user), draw.sample(KINDS, 2)
        wanted = [item for item, title in zip(ids, titles.values(), strict=True) if title.split()[1] in liked]
        for _ in range(8):
            when += timedelta(days=draw.randint(1, 8))
            events.append({"user": f"u{user:02d}", "item_id": draw.choice(wanted), "ts": when})
    pl.DataFrame({"item_id": ids, "title": list(titles.values())}).write_parquet(folder / "items.parquet")
    pl.DataFrame(events).write_parquet(folder / "events.parquet")


def run(warehouse, recipe, job, **changes):
    recipe = load_recipe(recipe)
    recipe = replace(recipe, tokenizer=replace(recipe.tokenizer, **changes))
    reports = run_job(RunContext.open(warehouse, recipe, run_id=new_run_id(), job=job))
    return next((report.details for report in reports if report.step == "fit"), {})


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Four releases: a generation, one aligned with it on changed data, a refresh, one that started warm and has digits."""
    folder = tmp_path_factory.mktemp("generations")
    (folder / "recipe.toml").write_text(RECIPE)
    titles = {row: f"{colour} {kind}" for row, (colour, kind) in enumerate((c, k) for c in COLOURS for k in KINDS)}
    warehouse, recipe = Warehouse.create_or_open(folder / "lake"), folder / "recipe.toml"
    write_sources(folder, {row: title for row, title in titles.items() if row < 52}, seed=1)
    details = {"first": run(warehouse, recipe, "retrain")}
    write_sources(folder, {row: title for row, title in titles.items() if row < 58}, seed=2)
    details["aligned"] = run(warehouse, recipe, "retrain")
    write_sources(folder, titles, seed=2)
    details["refresh"] = run(warehouse, recipe, "refresh")
    shutil.copytree(folder / "lake", folder / "before")
    details["warm"] = run(warehouse, recipe, "retrain", **WARM)
    return warehouse, details


def model_of(warehouse, release):
    path = warehouse.artifacts_dir / release.generation / "codebook.safetensors"
    return load_codebook(warehouse.fetched(path, release.codebook_hash))


def codes_of(warehouse, release):
    rows = warehouse.read("semantic_ids", version=release.tables["semantic_ids"], columns=["item_id", "codes", "raw_codes"])
    return {row["item_id"]: (row["codes"], row["raw_codes"]) for row in rows.to_pylist()}


def shares_of_both(former, codes):
    """The shares of items of both releases that changed, per level: codes and prefixes, counted one by one."""
    both = sorted(set(former) & set(codes))
    changed = np.array([[a != b for a, b in zip(former[item], codes[item], strict=True)] for item in both])
    return changed.mean(axis=0).tolist(), np.logical_or.accumulate(changed, axis=1).mean(axis=0).tolist()


def test_the_first_generation_is_fitted_cold_and_keeps_its_own_names(lake):
    warehouse, details = lake
    assert details["first"]["start"] == "cold"
    assert "code_churn" not in details["first"]
    assert not isinstance(model_of(warehouse, history(warehouse)[0]), Relabelled)


def test_a_retrain_reports_less_churn_than_without_names_and_never_more_at_any_level(lake):
    _, details = lake
    for name in ("aligned", "warm"):
        found = details[name]
        for churn in ("code_churn", "prefix_churn"):
            assert all(a <= b for a, b in zip(found[churn], found[f"{churn}_unaligned"], strict=True)), name
    assert details["aligned"]["code_churn"][0] < details["aligned"]["code_churn_unaligned"][0] - 0.2
    assert details["aligned"]["items_of_both"] == 52


def test_the_report_counts_new_raw_codes_against_published_ones(lake):
    warehouse, details = lake
    first, second = history(warehouse)[:2]
    former = {item: codes for item, (codes, _) in codes_of(warehouse, first).items()}
    raw = {item: raw for item, (_, raw) in codes_of(warehouse, second).items()}
    per_code, per_prefix = shares_of_both(former, raw)
    assert details["aligned"]["code_churn"] == pytest.approx(per_code, abs=1e-4)
    assert details["aligned"]["prefix_churn"] == pytest.approx(per_prefix, abs=1e-4)


def test_sid_quality_holds_the_churn_of_published_sids_with_and_without_alignment(lake):
    warehouse, _ = lake
    first, second = history(warehouse)[:2]
    former = {item: codes for item, (codes, _) in codes_of(warehouse, first).items()}
    published = {item: codes for item, (codes, _) in codes_of(warehouse, second).items()}
    model = model_of(warehouse, second)
    assert isinstance(model, Relabelled)
    own = {item: own_codes(model, np.array([codes]))[0].tolist() for item, codes in published.items()}
    rows = warehouse.read("sid_quality", version=second.tables["sid_quality"]).to_pylist()
    found = {(row["metric"], row["level"]): row["value"] for row in rows}
    for names, codes in (("", published), ("_unaligned", own)):
        per_code, per_prefix = shares_of_both(former, codes)
        assert [found[f"code_churn{names}", level] for level in range(3)] == pytest.approx(per_code)
        assert [found[f"prefix_churn{names}", level] for level in range(3)] == pytest.approx(per_prefix)


def test_codebooks_and_artifact_go_by_the_same_names(lake):
    warehouse, _ = lake
    second = history(warehouse)[1]
    model = model_of(warehouse, second)
    assert codebook_hash(model) == second.codebook_hash
    rows = warehouse.read("codebooks", version=second.tables["codebooks"]).to_pylist()
    for level, (book, counts) in enumerate(model.codebooks()):
        mine = sorted((row for row in rows if row["level"] == level), key=lambda row: row["code"])
        assert np.array_equal(np.array([row["centroid"] for row in mine], dtype=np.float32), book)
        assert [row["count"] for row in mine] == counts.tolist()


def test_a_refresh_goes_on_with_the_names(lake):
    warehouse, _ = lake
    _, second, third = history(warehouse)[:3]
    before, after = codes_of(warehouse, second), codes_of(warehouse, third)
    assert third.generation == second.generation
    assert {item: after[item] for item in before} == before
    assert len(after) == 60


def test_a_warm_start_changes_fewer_codes_whatever_they_are_called(lake):
    _, details = lake
    assert details["warm"]["start"] == "warm"
    assert details["warm"]["code_churn_unaligned"][0] < details["aligned"]["code_churn"][0]


def test_digits_are_appended_to_the_names_and_have_none(lake):
    warehouse, details = lake
    assert isinstance(model_of(warehouse, history(warehouse)[-1]), AppendDigit)
    assert [len(details["warm"][name]) for name in ("widths", "code_churn")] == [4, 3]


def test_both_generations_stay_readable_and_the_changes_lead_from_one_to_the_other(lake):
    warehouse, _ = lake
    releases = history(warehouse)
    for release in releases:
        rows = query(warehouse, f"SELECT item_id, codes FROM semantic_ids_at('{release.release_id}')").to_pylist()
        assert {row["item_id"]: row["codes"] for row in rows} == {
            item: codes for item, (codes, _) in codes_of(warehouse, release).items()
        }
    changes = query(warehouse, "FROM sid_changes").to_pylist()
    assert {(row["old_release"], row["old_generation"], row["new_release"], row["new_generation"]) for row in changes} == {
        ("r000003", "g0002", "r000004", "g0003")
    }
    tables = (
        query(warehouse, f"SELECT item_id, sid FROM semantic_ids_at('{name}')").to_pydict() for name in ("r000003", "r000004")
    )
    old, new = (dict(zip(table["item_id"], table["sid"], strict=True)) for table in tables)
    assert {row["item_id"]: (row["old_sid"], row["new_sid"]) for row in changes} == {
        item: (old[item], new[item]) for item in old if item in new and old[item] != new[item]
    }


def test_the_same_history_gives_the_same_release_elsewhere_and_alignment_can_be_switched_off(lake, tmp_path):
    warehouse, details = lake
    shutil.copytree(warehouse.root.parent / "before", tmp_path / "lake")
    copy, recipe = Warehouse(tmp_path / "lake"), warehouse.root.parent / "recipe.toml"
    assert run(copy, recipe, "retrain", **WARM) == details["warm"]
    assert history(copy)[-1].content_hash == history(warehouse)[-1].content_hash
    found = run(copy, recipe, "retrain", align=False, warm_start=True)  # from SIDs with a digit to SIDs without
    assert (found["start"], "code_churn" in found) == ("warm", False)
    assert not isinstance(model_of(copy, history(copy)[-1]), Relabelled)
