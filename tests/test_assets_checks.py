"""Each check is seen to fail on the table it is there for, and only that one."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pyarrow as pa
import pytest

from sidlake.assets import checks
from sidlake.assets.resources import OVERRIDE_TAG
from sidlake.assets.settings import Settings
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext
from sidlake.warehouse import laws
from sidlake.warehouse.releases import publish

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))
RELEASED = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("warehouse_sample.py"))))
RUN = "00000000-0000-0000-0000-000000000001"
ALL = {"unique_ids", "known_items", "complete", "unique", "codes", "still", "sequences_carry_codes", "leaves_are_sids", "gates"}
NAMES, CODES = RELEASED.item_ids(12), RELEASED.codes_of(12)


@pytest.fixture
def shop(tmp_path):
    """A released warehouse, and a function that runs all checks on a run in which some tables were replaced."""
    recipe = SAMPLE.write_shop(tmp_path)
    resource = SAMPLE.resource(tmp_path / "w", recipe)
    warehouse = resource.open_warehouse()
    publish(warehouse, RELEASED.draft(RELEASED.write(warehouse)), expected_parent=None)

    def run(override: str | None = None, **tables: pa.Table) -> dict[str, dg.AssetCheckEvaluation]:
        ctx = RunContext.open(warehouse, load_recipe(recipe), run_id=RUN, job="refresh")
        for table, rows in tables.items():
            ctx.write(table, rows, num_levels=3 if table == "semantic_ids" else None)
        ctx.save()
        result = run_checks(resource, run_id=RUN, tags={OVERRIDE_TAG: override} if override else {})
        return {check.check_name: check for check in result.get_asset_check_evaluations()}

    return run


def run_checks(resource, **options):
    job = dg.define_asset_job("checks_only", selection=dg.AssetSelection.all_asset_checks())
    alone = dg.Definitions(asset_checks=checks.checks_for(Settings()), jobs=[job], resources={"sidlake": resource})
    return alone.resolve_job_def("checks_only").execute_in_process(raise_on_error=False, **options)


def failed(found: dict[str, dg.AssetCheckEvaluation]) -> set[str]:
    assert set(found) == ALL
    return {name for name, check in found.items() if not check.passed}


def test_a_lawful_release_passes_all_checks(shop):
    assert failed(shop()) == set()


def test_an_item_that_is_there_twice_breaks_unique_ids(shop):
    found = shop(items=RELEASED.items([*NAMES, NAMES[0]]))
    assert "unique_ids" in failed(found)
    assert NAMES[0].split("'")[1] in str(found["unique_ids"].metadata["examples"].value)


def test_an_empty_item_id_breaks_unique_ids(shop):
    assert "unique_ids" in failed(shop(items=RELEASED.items([*NAMES, ""])))


def test_an_event_of_an_unknown_item_breaks_known_items(shop):
    assert failed(shop(interactions=RELEASED.interactions([*NAMES, "nobody"]))) == {"known_items"}


def test_an_item_without_a_sid_breaks_complete(shop):
    found = failed(shop(items=RELEASED.items([*NAMES, "new"])))
    assert found == {"complete"}


def test_two_items_with_one_sid_break_unique(shop):
    new = [*CODES, CODES[0]]
    rows = RELEASED.semantic_ids([*NAMES, "new"], new)
    found = failed(shop(items=RELEASED.items([*NAMES, "new"]), semantic_ids=rows))
    assert {"unique", "still"} <= found <= {"unique", "still", "leaves_are_sids"}


def test_a_code_outside_its_codebook_breaks_codes(shop):
    rows = RELEASED.semantic_ids([*NAMES, "new"], [*CODES, [2, 3, 5]])
    found = failed(shop(items=RELEASED.items([*NAMES, "new"]), semantic_ids=rows))
    assert found == {"codes", "leaves_are_sids"}


def test_a_misspelt_sid_breaks_codes(shop):
    rows = RELEASED.semantic_ids(NAMES, CODES)
    sids = pa.array(["<a_0><b_0><c_9>", *rows.column("sid").to_pylist()[1:]])
    misspelt = rows.set_column(rows.schema.get_field_index("sid"), rows.schema.field("sid"), sids)
    assert failed(shop(semantic_ids=misspelt)) == {"codes"}


def test_published_sids_that_change_places_break_still(shop):
    swapped = [CODES[1], CODES[0], *CODES[2:]]
    tables = {"user_sequences": RELEASED.sequences(NAMES, swapped), "sid_trie": RELEASED.trie(NAMES, swapped)}
    found = shop(semantic_ids=RELEASED.semantic_ids(NAMES, swapped), **tables)
    assert failed(found) == {"still"}
    assert "r000001" in str(found["still"].description)


def test_a_trie_of_other_sids_breaks_leaves_are_sids(shop):
    assert failed(shop(sid_trie=RELEASED.trie(NAMES, RELEASED.codes_of(12, skip=1)))) == {"leaves_are_sids"}


def test_sequences_of_other_codes_break_sequences_carry_codes(shop):
    found = failed(shop(user_sequences=RELEASED.sequences(NAMES, RELEASED.codes_of(12, skip=1))))
    assert found == {"sequences_carry_codes"}


def test_a_gate_that_refuses_is_an_error_with_its_limit(shop):
    found = shop(sid_quality=RELEASED.quality("refuse", 0.9))
    assert failed(found) == {"gates"}
    assert found["gates"].severity is dg.AssetCheckSeverity.ERROR
    assert "collision_rate is 0.9, the limit is 0.5" in str(found["gates"].description)


def test_a_gate_that_was_overridden_is_a_warning_that_says_why(shop):
    found = shop(override="the shop moves house", sid_quality=RELEASED.quality("refuse", 0.9))
    assert failed(found) == {"gates"}
    assert found["gates"].severity is dg.AssetCheckSeverity.WARN
    assert str(found["gates"].description).startswith("overridden: the shop moves house; collision_rate is 0.9")


def test_an_override_lets_no_law_pass(shop):
    found = shop(override="never mind", semantic_ids=RELEASED.semantic_ids(NAMES[:-1], CODES[:-1]))
    assert found["complete"].severity is dg.AssetCheckSeverity.ERROR
    assert "complete" in failed(found)


def test_a_gate_that_warns_is_a_warning(shop):
    found = shop(sid_quality=RELEASED.quality("warn", 0.9))
    assert failed(found) == {"gates"}
    assert found["gates"].severity is dg.AssetCheckSeverity.WARN


def test_quality_without_rows_is_an_error(shop):
    found = shop(sid_quality=RELEASED.quality().slice(0, 0))
    assert failed(found) == {"gates"}
    assert found["gates"].severity is dg.AssetCheckSeverity.ERROR


def test_a_catalogue_without_interactions_passes(tmp_path):
    recipe = SAMPLE.write_shop(tmp_path)
    resource = SAMPLE.resource(tmp_path / "w", recipe)
    warehouse = resource.open_warehouse()
    tables = RELEASED.write(warehouse)
    kept = {name: version for name, version in tables.items() if name not in ("interactions", "user_sequences")}
    publish(warehouse, RELEASED.draft(kept), expected_parent=None)
    result = run_checks(resource)
    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == dict.fromkeys(ALL, True)


def test_every_rule_about_items_and_sids_belongs_to_one_check():
    published = laws._published_laws("r000001", retired=True)
    rules = [
        law.rule
        for law in (*laws._item_laws(), *laws._sid_laws([4, 4]), *laws._retirement_laws(), *laws._ledger_laws(), *published)
    ]
    for rule in rules:
        assert sum(rule.startswith(starts) for starts in checks.SID_LAWS.values()) == 1, rule
