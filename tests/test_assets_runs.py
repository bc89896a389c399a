"""Whole runs on a small shop: what they publish, what they show, what stops them and how they are taken up again."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import duckdb
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver  # what the UI asks
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.loader import LoadingContextForTest

from sidlake.assets import checks
from sidlake.assets.definitions import defs, defs_for
from sidlake.assets.launch import _PROCESS_TAG, _process, launch, main
from sidlake.assets.settings import Settings
from sidlake.errors import ReleaseConflict
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.release import release as publish_step
from sidlake.pipelines.run import RunContext
from sidlake.pipelines.steps import STEPS
from sidlake.warehouse.releases import history
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))
ROOT = Path(__file__).parents[1]
UNUSED = {"image_embeddings", "precomputed_embeddings"}  # the small recipe asks for neither
TABLES = {key.to_user_string() for key in defs.resolve_job_def("retrain").asset_layer.executable_asset_keys} - {"quality_report"}
ASSETS = sorted(TABLES - UNUSED - {"fusion", "retired_sids"})  # an artifact, and what is absent while no item has left
IMPOSSIBLE = '[[gates]]\nmetric = "unique_share"\nminimum = 1.1\n'


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A shop after one `retrain`, with the instance that recorded it."""
    folder = tmp_path_factory.mktemp("shop")
    recipe = SAMPLE.write_shop(folder, more=SAMPLE.INTERACTIONS + SAMPLE.BEHAVIOUR + SAMPLE.TRAINER)
    with SAMPLE.instance() as instance:
        errors = launch("retrain", SAMPLE.resource(folder / "w", recipe), instance)
        yield SimpleNamespace(folder=folder, recipe=recipe, warehouse=Warehouse(folder / "w"), instance=instance, errors=errors)


@pytest.fixture
def shop(trained, tmp_path):
    """A copy of the trained shop, to be changed."""
    shutil.copytree(trained.folder, tmp_path, dirs_exist_ok=True)
    recipe = tmp_path / "recipe.toml"
    return SimpleNamespace(recipe=recipe, warehouse=Warehouse(tmp_path / "w"), resource=SAMPLE.resource(tmp_path / "w", recipe))


def run(shop, job: str = "retrain", selection: list[str] | None = None) -> dg.ExecuteInProcessResult:
    keys = [dg.AssetKey(key) for key in selection] if selection else None
    config = config_of(shop.resource)
    return defs.resolve_job_def(job).execute_in_process(run_config=config, asset_selection=keys, raise_on_error=False)


def config_of(resource) -> dict[str, object]:
    return {"resources": {"sidlake": {"config": {"warehouse": resource.warehouse, "recipe": resource.recipe}}}}


def metadata(trained, key: str) -> dict[str, dg.MetadataValue]:
    event = trained.instance.get_latest_materialization_event(dg.AssetKey(key))
    assert event is not None
    return dict(event.asset_materialization.metadata)


def failures(result: dg.ExecuteInProcessResult) -> list[str]:
    return [
        event.step_failure_data.user_failure_data.metadata["error"].value
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.user_failure_data
    ]


def test_retrain_publishes_a_release_and_passes_its_checks(trained):
    assert trained.errors == []
    (release,) = history(trained.warehouse)
    assert release.reason == "retrain small"
    assert trained.warehouse.num_rows("semantic_ids", release.tables["semantic_ids"]) == 60
    (last,) = trained.instance.get_runs()
    records = trained.instance.all_logs(last.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    assert len(records) == 9
    assert all(record.dagster_event.asset_check_evaluation_data.passed for record in records)


@pytest.mark.parametrize("key", ASSETS)
def test_every_asset_shows_rows_seconds_schema_and_a_short_preview(trained, key):
    found = metadata(trained, key)
    assert found["skipped"].value is False
    assert found["seconds"].value >= 0
    assert (found["dagster/row_count"].value == 0) == (key == "rejected_rows")
    assert all(column.description for column in found["dagster/column_schema"].value.columns)
    assert 2 <= len(found["preview"].value.splitlines()) <= 12


def test_the_report_is_a_page_in_the_warehouse_and_says_its_verdict(trained):
    found = metadata(trained, "quality_report")
    page = Path(found["path"].value)
    assert page == trained.warehouse.root / "reports" / "r000001.html"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (found["skipped"].value, found["verdict"].value) == (False, "pass")


@pytest.mark.parametrize("key", sorted(UNUSED))
def test_a_modality_that_the_recipe_leaves_out_is_skipped(trained, key):
    assert metadata(trained, key)["skipped"].value is True


def test_a_comparison_shows_its_figures_and_publishes_nothing(shop):
    before = len(history(shop.warehouse))
    key = dg.AssetKey(["comparison", "grid"])
    job = defs.resolve_job_def("compare")
    result = job.execute_in_process(run_config=config_of(shop.resource), asset_selection=[key], raise_on_error=False)
    (event,) = result.get_asset_materialization_events()
    found = event.step_materialization_data.materialization.metadata
    assert found["status"].value == "ok"
    assert found["unique_share"].value == 1.0
    assert found["uniqueness"].value == "append"
    assert len(history(shop.warehouse)) == before


def test_quality_and_model_scores_are_numbers_that_draw_history(trained):
    quality, scores = metadata(trained, "sid_quality"), metadata(trained, "recommender")
    assert quality["unique_share"].value == 1.0
    assert isinstance(quality["level_utilisation level 0"].value, float)
    assert isinstance(scores["tiger recall@10 (test)"].value, float)


@pytest.mark.parametrize("key", ["codebooks", "semantic_ids"])
def test_code_usage_is_drawn(trained, key):
    assert metadata(trained, key)["code_usage"].value.startswith("![")


def test_a_second_run_does_nothing_and_publishes_nothing(shop):
    result = run(shop)
    assert result.success
    skipped = {key: result.asset_materializations_for_node(node)[0].metadata["skipped"].value for key, node in _nodes(result)}
    assert skipped == dict.fromkeys(skipped, True)
    assert len(skipped) == 15
    assert len(history(shop.warehouse)) == 1


def test_a_skipped_asset_keeps_its_data_version(shop, trained):
    result = run(shop, selection=["items", "interactions", "rejected_rows"])
    before = trained.instance.get_latest_materialization_event(dg.AssetKey("items")).asset_materialization.tags
    (after,) = [event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey("items")]
    assert after.materialization.tags["dagster/data_version"] == before["dagster/data_version"]


def test_refresh_gives_new_items_a_sid_and_moves_none(shop):
    items = shop.recipe.parent / "items.parquet"
    frame = pl.read_parquet(items)
    pl.concat([frame, pl.DataFrame([{"item_id": "NEW", "title": "golden mug", "price": 9.0}])]).write_parquet(items)
    before = dict(shop.warehouse.scan("semantic_ids").select("item_id", "sid").collect().iter_rows())
    result = run(shop, "refresh")
    assert result.success
    release = history(shop.warehouse)[-1]
    after = dict(
        shop.warehouse.scan("semantic_ids", version=release.tables["semantic_ids"]).select("item_id", "sid").collect().rows()
    )
    assert (release.release_id, release.reason) == ("r000002", "refresh small")
    assert after.pop("NEW")
    assert after == before


def test_a_refusing_gate_stops_the_run_before_the_release(shop):
    shop.recipe.write_text(shop.recipe.read_text() + IMPOSSIBLE)
    result = run(shop)
    assert not result.success
    assert [check.check_name for check in result.get_asset_check_evaluations() if not check.passed] == ["gates"]
    assert {"release", "recommender"}.isdisjoint(key for key, _ in _nodes(result))
    assert len(history(shop.warehouse)) == 1


def test_a_separate_run_of_the_release_alone_publishes_nothing_of_a_refused_run(shop):
    shop.recipe.write_text(shop.recipe.read_text() + IMPOSSIBLE)
    run(shop)
    run(shop, selection=["release"])
    assert len(history(shop.warehouse)) == 1


def test_without_its_checks_a_run_is_refused_by_the_release_itself(shop):
    shop.recipe.write_text(shop.recipe.read_text() + IMPOSSIBLE)
    selection = dg.AssetSelection.all() - dg.AssetSelection.groups("comparison")
    unchecked = dg.define_asset_job("unchecked", selection=selection.without_checks())
    job = dg.Definitions(assets=defs.assets, jobs=[unchecked], resources={"sidlake": shop.resource}).resolve_job_def("unchecked")
    result = job.execute_in_process(raise_on_error=False)
    assert failures(result) == ["GateFailed"]
    assert len(history(shop.warehouse)) == 1


def test_a_refused_run_taken_up_again_at_the_release_is_refused_by_the_release_itself(shop):
    shop.recipe.write_text(shop.recipe.read_text() + IMPOSSIBLE)
    job, config = dg.reconstructable(_retrain), config_of(shop.resource)
    with SAMPLE.instance() as instance:
        first = dg.execute_job(job, instance, run_config=config)
        only = dg.ReexecutionOptions(parent_run_id=first.run_id, step_selection=["release"])
        second = dg.execute_job(job, instance, run_config=config, reexecution_options=only)
    assert failures(second) == ["GateFailed"]
    assert len(history(shop.warehouse)) == 1


def test_eager_automation_asks_for_the_release_of_a_refused_run_and_publishes_nothing(shop):
    shop.recipe.write_text(shop.recipe.read_text() + IMPOSSIBLE)
    key, eager = dg.AssetKey("release"), dg.AutomationCondition.eager()
    assets = dg.map_asset_specs(
        lambda spec: spec.replace_attributes(automation_condition=eager if spec.key == key else None), defs.assets
    )
    before_it = dg.define_asset_job("before_it", selection=dg.AssetSelection.assets(key).upstream(include_self=False))
    alone = dg.define_asset_job("alone", selection=dg.AssetSelection.assets(key))
    eagerly = dg.Definitions(
        assets=assets, asset_checks=checks.checks_for(Settings()), jobs=[before_it, alone], resources={"sidlake": shop.resource}
    )
    with SAMPLE.instance() as instance:
        before = dg.evaluate_automation_conditions(eagerly, instance)
        refused = eagerly.resolve_job_def("before_it").execute_in_process(instance=instance, raise_on_error=False)
        assert [check.check_name for check in refused.get_asset_check_evaluations() if not check.passed] == ["gates"]
        asked = dg.evaluate_automation_conditions(eagerly, instance, cursor=before.cursor)
        assert asked.get_num_requested(key) == 1
        eagerly.resolve_job_def("alone").execute_in_process(instance=instance, raise_on_error=False)
    assert len(history(shop.warehouse)) == 1


def test_an_override_publishes_what_gates_refuse_and_the_release_says_why(shop):
    shop.recipe.write_text(shop.recipe.read_text() + IMPOSSIBLE)
    with SAMPLE.instance() as instance:
        assert launch("retrain", shop.resource, instance, override="the shop moves house") == []
    first, second = history(shop.warehouse)
    assert (first.override, second.override) == (None, "the shop moves house")
    assert "@" in second.published_by


def test_in_an_empty_warehouse_the_release_alone_says_what_to_run_first(tmp_path):
    recipe = SAMPLE.write_shop(tmp_path)
    result = run(SimpleNamespace(resource=SAMPLE.resource(tmp_path / "w", recipe)), selection=["release"])
    assert failures(result) == ["NotFoundError"]


def test_a_failed_run_is_finished_by_re_executing_it_from_the_failure(tmp_path):
    recipe = SAMPLE.write_shop(tmp_path, more="")  # without interactions, which is a catalogue too
    good = recipe.read_text()
    (tmp_path / "model").mkdir()  # a folder that is no model
    recipe.write_text(good.replace("[encoders.text]", f'[encoders.text]\nmodel = "{tmp_path / "model"}"'))
    config = config_of(SAMPLE.resource(tmp_path / "w", recipe))
    job = dg.reconstructable(_retrain)
    with SAMPLE.instance() as instance:
        first = dg.execute_job(job, instance, run_config=config)
        assert not first.success
        recipe.write_text(good)
        again = dg.ReexecutionOptions.from_failure(first.run_id, instance)
        second = dg.execute_job(job, instance, run_config=config, reexecution_options=again)
        assert second.success
        assert {"ingest", "text_embeddings"} & {event.step_key for event in second.all_events} == {"text_embeddings"}
    (release,) = history(Warehouse(tmp_path / "w"))
    assert release.tables["items"] == 0  # written once, by the first attempt
    assert {"interactions", "user_sequences"}.isdisjoint(release.tables)


def test_a_failed_run_whose_state_is_gone_cannot_be_finished_but_all_its_steps_can_run_anew(tmp_path):
    recipe = SAMPLE.write_shop(tmp_path, more="")
    good = recipe.read_text()
    recipe.write_text(good.replace("[encoders.text]", f'[encoders.text]\nmodel = "{tmp_path / "none"}"'))
    config, lake = config_of(SAMPLE.resource(tmp_path / "w", recipe)), Warehouse(tmp_path / "w")
    job = dg.reconstructable(_retrain)
    with SAMPLE.instance() as instance:
        first = dg.execute_job(job, instance, run_config=config)
        recipe.write_text(good)
        lake.remove(f"runs/{first.run_id}.json")
        again = dg.ReexecutionOptions.from_failure(first.run_id, instance)
        assert set(failures(dg.execute_job(job, instance, run_config=config, reexecution_options=again))) == {"RunStateError"}
        assert history(lake) == []
        anew = dg.ReexecutionOptions(parent_run_id=first.run_id)
        assert dg.execute_job(job, instance, run_config=config, reexecution_options=anew).success
    assert len(history(lake)) == 1


def test_a_run_of_all_steps_anew_that_fails_is_finished_with_what_it_read_itself(tmp_path):
    recipe = SAMPLE.write_shop(tmp_path, more="")
    good, items = recipe.read_text(), tmp_path / "items.parquet"
    recipe.write_text(good.replace("[encoders.text]", f'[encoders.text]\nmodel = "{tmp_path / "none"}"'))
    config, lake = config_of(SAMPLE.resource(tmp_path / "w", recipe)), Warehouse(tmp_path / "w")
    job = dg.reconstructable(_retrain)
    with SAMPLE.instance() as instance:
        first = dg.execute_job(job, instance, run_config=config)
        more = pl.DataFrame([{"item_id": "NEW", "title": "golden mug", "price": 9.0}])
        pl.concat([pl.read_parquet(items), more]).write_parquet(items)
        anew = dg.ReexecutionOptions(parent_run_id=first.run_id)
        failed = dg.execute_job(job, instance, run_config=config, reexecution_options=anew)
        for text in (recipe.read_text(), good):  # taken up twice: the first time nothing is cured yet
            recipe.write_text(text)
            again = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
            failed = dg.execute_job(job, instance, run_config=config, reexecution_options=again)
    assert failed.success
    assert [lake.num_rows("items", one.tables["items"]) for one in history(lake)] == [61]


@pytest.mark.slow
def test_with_a_process_per_step_a_retrain_publishes_the_same_release(trained, tmp_path):
    recipe = SAMPLE.write_shop(tmp_path, more=SAMPLE.INTERACTIONS + SAMPLE.BEHAVIOUR + SAMPLE.TRAINER)
    config = config_of(SAMPLE.resource(tmp_path / "w", recipe))
    (tmp_path / "home").mkdir()  # processes of a run meet in an instance on disk
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        result = dg.execute_job(ReconstructableJob.for_file(__file__, "_retrain_by_processes"), instance, run_config=config)
        assert failures(result) == []
        assert result.success
    (release,) = history(Warehouse(tmp_path / "w"))
    assert release.content_hash == history(trained.warehouse)[0].content_hash


def test_two_catalogues_in_one_instance_publish_their_own_releases(tmp_path):
    places = {name: (SAMPLE.write_shop(tmp_path / name, more=""), tmp_path / name / "w") for name in ("shoes", "books")}
    both = dg.Definitions.merge(*(defs_for(str(recipe), str(lake), name) for name, (recipe, lake) in places.items()))
    dg.Definitions.validate_loadable(both)
    assert both.resolve_job_def("shoes_retrain").execute_in_process(raise_on_error=False).success
    assert [len(history(Warehouse(lake))) if lake.exists() else 0 for _, lake in places.values()] == [1, 0]
    assert both.resolve_job_def("books_retrain").execute_in_process(raise_on_error=False).success
    assert [len(history(Warehouse(lake))) for _, lake in places.values()] == [1, 1]


def test_nothing_is_stale_after_a_refresh_that_did_its_work(shop):
    with SAMPLE.instance() as instance:
        for job in ("retrain", "refresh"):
            if job == "refresh":
                items = shop.recipe.parent / "items.parquet"
                frame = pl.read_parquet(items)
                pl.concat([frame, pl.DataFrame([{"item_id": "NEW", "title": "golden mug", "price": 9.0}])]).write_parquet(items)
            assert launch(job, shop.resource, instance) == []
        graph = defs.resolve_asset_graph()
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        made = [key for step in STEPS.values() for key in map(dg.AssetKey, step.writes)]
        assert {key.to_user_string(): resolver.get_status(key).name for key in made} == {
            key.to_user_string(): "FRESH" for key in made
        }


def test_launch_says_in_one_line_what_refused(shop):
    shop.recipe.write_text(shop.recipe.read_text() + IMPOSSIBLE)
    with SAMPLE.instance() as instance:
        (line,) = launch("retrain", shop.resource, instance)
    assert line.startswith("sid_quality refused by check gates: unique_share is 1.0, the limit is 1.1")


def test_launch_names_the_error_of_a_step(tmp_path):
    recipe = SAMPLE.write_shop(tmp_path)
    (tmp_path / "events.parquet").write_bytes(b"PAR1 and no more")
    with SAMPLE.instance() as instance:
        (line,) = launch("retrain", SAMPLE.resource(tmp_path / "w", recipe), instance)
    assert line.startswith("SourceError: source ")
    assert "\n" not in line


def test_a_run_taken_up_after_another_has_published_is_refused(shop):
    _measured_again(shop, "old")
    publish_step(_measured_again(shop, "new"))
    with pytest.raises(ReleaseConflict):
        publish_step(_opened(shop, "old"))
    assert len(history(shop.warehouse)) == 2


def test_a_release_step_that_died_before_the_catalogue_writes_it_when_tried_again(shop):
    catalogue = shop.warehouse.root / "catalog.duckdb"
    before = catalogue.read_bytes()
    publish_step(_measured_again(shop, "run"))
    catalogue.write_bytes(before)
    assert publish_step(_opened(shop, "run")).skipped
    with duckdb.connect(catalogue, read_only=True) as connection:
        assert connection.sql("select count(*) from releases").fetchall() == [(2,)]
    assert len(history(shop.warehouse)) == 2


@pytest.mark.parametrize(
    ("break_it", "code", "said"),
    [
        (lambda folder: (folder / "items.parquet").unlink(), 1, "sidlake: SourceError: source items"),
        (lambda folder: (folder / "recipe.toml").write_text("nmae = 1"), 2, "sidlake: RecipeError: recipe "),
        (lambda folder: (folder / "w").write_text("a file"), 1, "sidlake: StorageError: cannot use "),
    ],
)
def test_the_command_ends_with_one_line_and_its_exit_code(tmp_path, monkeypatch, capsys, break_it, code, said):
    SAMPLE.write_shop(tmp_path)
    break_it(tmp_path)
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main("retrain", warehouse=tmp_path / "w", recipe=tmp_path / "recipe.toml")
    printed = capsys.readouterr().err
    assert ended.value.code == code
    assert printed.startswith(said)
    assert len(printed.splitlines()) == 1


def test_the_command_wants_the_project_s_dagster_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main("retrain", warehouse=tmp_path / "w", recipe=SAMPLE.write_shop(tmp_path))
    assert ended.value.code == 2
    assert "no dagster.yaml in" in capsys.readouterr().err


def test_launch_closes_runs_whose_process_was_killed(shop):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    job = defs.resolve_job_def("refresh")
    with SAMPLE.instance() as instance:
        for pid in (dead.pid, os.getpid()):
            instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags={_PROCESS_TAG: _process(pid)})
        launch("refresh", shop.resource, instance)
        states = {
            run.tags[_PROCESS_TAG]: run.status for run in instance.get_runs() if run.status is not dg.DagsterRunStatus.SUCCESS
        }
    assert states == {_process(dead.pid): dg.DagsterRunStatus.FAILURE, _process(os.getpid()): dg.DagsterRunStatus.STARTED}


def _retrain() -> dg.JobDefinition:
    return defs.resolve_job_def("retrain")


def _retrain_by_processes() -> dg.JobDefinition:
    return defs_for("none.toml", "none", executor="multiprocess").resolve_job_def("retrain")


def _opened(shop, run_id: str) -> RunContext:
    return RunContext.open(shop.warehouse, load_recipe(shop.recipe), run_id=run_id, job="refresh")


def _measured_again(shop, run_id: str) -> RunContext:
    ctx = _opened(shop, run_id)
    ctx.write("sid_quality", ctx.read("sid_quality"))
    ctx.save()
    return ctx


def _nodes(result: dg.ExecuteInProcessResult) -> list[tuple[str, str]]:
    """Return (first asset, node) of each step that materialised something."""
    nodes = {event.step_key: event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    return [(key, node) for node, key in nodes.items()]
