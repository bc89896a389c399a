import fcntl
import runpy
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from sidlake.assets.generated import asset_of
from sidlake.assets.resources import JOB_TAG, SidlakeResource
from sidlake.assets.settings import Settings, settings_from
from sidlake.errors import StorageError, WarehouseBusy
from sidlake.pipelines.run import Step, StepReport
from sidlake.pipelines.steps import STEPS

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))

CATALOG = asset_of(STEPS["ingest"], Settings())


def test_without_variables_the_settings_are_the_repository_s_own():
    settings = settings_from({})
    assert (settings.warehouse, settings.recipe, settings.schedules) == ("lake", "recipes/online_retail.toml", "off")


def test_each_setting_is_read_from_its_variable():
    values = {name: f"{index} 3 * * *" for index, name in enumerate(("refresh_cron", "retrain_cron"))}
    values |= {"warehouse": "/w", "recipe": "r.toml", "engine": "beam", "schedules": "on"}
    assert settings_from({f"SIDLAKE_{name.upper()}": value for name, value in values.items()}) == Settings(**values)


def test_an_empty_variable_is_an_unset_one():
    assert settings_from({"SIDLAKE_WAREHOUSE": ""}).warehouse == "lake"


@pytest.mark.parametrize("name", ["SIDLAKE_SCHEDULES", "SIDLAKE_ENGINE"])
def test_a_setting_out_of_range_is_refused(name):
    with pytest.raises(ValueError, match=name):
        settings_from({name: "maybe"})


@pytest.mark.parametrize(
    ("selected", "tags", "job"),
    [
        (["codebooks", "other"], {}, "retrain"),
        (["other"], {}, "refresh"),
        (["other"], {JOB_TAG: "retrain"}, "retrain"),
        (["codebooks", "other"], {JOB_TAG: "refresh"}, "refresh"),
    ],
)
def test_a_run_is_a_retrain_when_tagged_so_or_when_it_includes_the_codebooks(tmp_path, selected, tags, job):
    assets = [_probe(name) for name in ("codebooks", "other")]
    resources = {"sidlake": SAMPLE.resource(tmp_path / "w", SAMPLE.write_shop(tmp_path))}
    result = dg.materialize(assets, selection=dg.AssetSelection.assets(*selected), resources=resources, tags=tags)
    (seen,) = result.asset_materializations_for_node("other")
    assert seen.metadata["job"].value == job


def test_an_unknown_job_tag_fails_without_retries(tmp_path):
    resources = {"sidlake": SAMPLE.resource(tmp_path / "w", SAMPLE.write_shop(tmp_path))}
    result = dg.materialize([CATALOG], resources=resources, tags={JOB_TAG: "rebuild"}, raise_on_error=False)
    assert _failures(result) == ["RecipeError: run tag sidlake/job must be refresh or retrain, got 'rebuild'"]
    assert not _restarts(result)


def test_the_writer_lock_is_held_from_the_first_step_to_the_end_of_the_run(tmp_path):
    lock = tmp_path / "w" / "writer.lock"

    @dg.asset
    def first(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> None:
        sidlake.run_step(context, Step(name="first", run=lambda ctx: StepReport(step="first"), skips=False))

    @dg.asset(deps=[first])
    def second(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"free": _free(lock)})

    resources = {"sidlake": SAMPLE.resource(tmp_path / "w", SAMPLE.write_shop(tmp_path))}
    for _ in range(2):  # twice, since the resource of a second run must take it anew
        result = dg.materialize([first, second], resources=resources)
        assert result.asset_materializations_for_node("second")[0].metadata["free"].value is False
        assert _free(lock)


def test_a_missing_source_fails_the_run_at_once(tmp_path):
    recipe = SAMPLE.write_shop(tmp_path)
    (tmp_path / "items.parquet").unlink()
    result = dg.materialize([CATALOG], resources={"sidlake": SAMPLE.resource(tmp_path / "w", recipe)}, raise_on_error=False)
    (failure,) = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    assert not _restarts(result)
    assert failure.metadata["error"].value == "SourceError"
    assert failure.metadata["details"].value["path"].endswith("items.parquet")


def test_a_busy_warehouse_is_tried_again_until_it_is_free(tmp_path):
    lock = SAMPLE.resource(tmp_path / "w", SAMPLE.write_shop(tmp_path)).open_warehouse().root / "writer.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        class FreedBeforeTheSecondTry(SidlakeResource):
            def run_step(self, context, step):
                if context.retry_number:
                    held.close()
                return super().run_step(context, step)

        resource = FreedBeforeTheSecondTry(warehouse=str(tmp_path / "w"), recipe=str(tmp_path / "recipe.toml"))
        result = dg.materialize([CATALOG], resources={"sidlake": resource})
    assert WarehouseBusy.__name__ in _restarts(result)[0]


def test_storage_that_comes_back_is_tried_again(tmp_path):
    (tmp_path / "w").write_text("not a folder")

    class ThereAtTheSecondTry(SidlakeResource):
        def run_step(self, context, step):
            if context.retry_number:
                (tmp_path / "w").unlink()
            return super().run_step(context, step)

    recipe = SAMPLE.write_shop(tmp_path)
    resource = ThereAtTheSecondTry(warehouse=str(tmp_path / "w"), recipe=str(recipe))
    result = dg.materialize([CATALOG], resources={"sidlake": resource})
    assert StorageError.__name__ in _restarts(result)[0]


def test_a_recipe_that_changes_during_a_run_changes_the_next_run(tmp_path):
    recipe = SAMPLE.write_shop(tmp_path)

    @dg.asset
    def first(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> None:
        sidlake.open_run(context)
        recipe.write_text(recipe.read_text().replace('"small"', '"renamed"'))

    @dg.asset(deps=[first])
    def second(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"name": sidlake.open_run(context).recipe.name})

    resources = {"sidlake": SAMPLE.resource(tmp_path / "w", recipe)}
    names = []
    for _ in range(2):
        result = dg.materialize([first, second], resources=resources)
        names.append(result.asset_materializations_for_node("second")[0].metadata["name"].value)
    assert names == ["small", "renamed"]


def _probe(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name)
    def probe(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"job": sidlake.open_run(context).job})

    return probe


def _free(lock: Path) -> bool:
    with lock.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _restarts(result: dg.ExecuteInProcessResult) -> list[str]:
    """Return the errors after which a step was tried again."""
    events = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    return [str(event.step_retry_data.error) for event in events]


def _failures(result: dg.ExecuteInProcessResult) -> list[str]:
    return [event.step_failure_data.user_failure_data.description for event in result.all_events if event.is_step_failure]
