from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from sidlake.assets.definitions import defs, defs_for
from sidlake.assets.resources import JOB_TAG
from sidlake.errors import RecipeError

# key: (group, what it depends on). A change of the graph is a change of this literal.
GRAPH = {
    "items": ("catalog", []),
    "interactions": ("catalog", []),
    "rejected_rows": ("catalog", []),
    "text_embeddings": ("embeddings", ["items"]),
    "behaviour_embeddings": ("embeddings", ["interactions", "items"]),
    "image_embeddings": ("embeddings", ["items", "rejected_rows"]),
    "precomputed_embeddings": ("embeddings", ["items"]),
    "fusion": (
        "embeddings",
        ["behaviour_embeddings", "image_embeddings", "interactions", "items", "precomputed_embeddings", "text_embeddings"],
    ),
    "fused_embeddings": (
        "embeddings",
        ["behaviour_embeddings", "fusion", "image_embeddings", "items", "precomputed_embeddings", "text_embeddings"],
    ),
    "codebooks": ("semantic_ids", ["behaviour_embeddings", "fused_embeddings", "interactions", "items"]),
    "semantic_ids": ("semantic_ids", ["codebooks", "fused_embeddings", "items"]),
    "retired_sids": ("semantic_ids", ["codebooks", "fused_embeddings", "items"]),
    "user_sequences": ("features", ["interactions", "semantic_ids"]),
    "sid_trie": ("features", ["semantic_ids"]),
    "sid_quality": ("quality", ["codebooks", "fused_embeddings", "interactions", "items", "rejected_rows", "semantic_ids"]),
    "release": (
        "release",
        [
            "codebooks", "fused_embeddings", "interactions", "items", "rejected_rows", "retired_sids", "semantic_ids",
            "sid_quality", "sid_trie", "user_sequences",
        ],
    ),
    "quality_report": ("quality", ["release"]),
    "recommender": ("training", ["release"]),
}  # fmt: skip
METHODS = [path.stem.replace("-", "_") for path in (Path(__file__).parent.parent / "recipes" / "methods").glob("*.toml")]
GRAPH |= {f"comparison/{method}": ("comparison", []) for method in METHODS}

CHECKS = {
    "items": ["unique_ids"],
    "interactions": ["known_items"],
    "semantic_ids": ["codes", "complete", "still", "unique"],
    "user_sequences": ["sequences_carry_codes"],
    "sid_trie": ["leaves_are_sids"],
    "sid_quality": ["gates"],
}

SPECS = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_the_asset_graph_is_the_one_written_down():
    found = {key: (spec.group_name, sorted(dep.asset_key.to_user_string() for dep in spec.deps)) for key, spec in SPECS.items()}
    assert found == GRAPH


def test_definitions_are_valid():
    dg.Definitions.validate_loadable(defs)


@pytest.mark.parametrize("key", sorted(GRAPH))
def test_every_asset_has_owner_kinds_description_and_code_version(key):
    spec = SPECS[key]
    assert list(spec.owners) == ["team:sidlake"]
    assert len(spec.kinds) >= 2
    assert len(spec.description or "") > 30
    assert spec.code_version


def test_assets_that_may_use_a_gpu_share_its_pool():
    graph = defs.resolve_asset_graph()
    pooled = {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).pools == {"gpu"}}
    assert pooled == {"text_embeddings", "image_embeddings", "codebooks", "recommender"}


def test_every_asset_retries_what_storage_may_cure():
    for asset in defs.assets or []:
        policy = asset.op.retry_policy
        assert policy is not None, asset.keys
        assert policy.max_retries > 0


def test_each_law_and_gate_has_a_blocking_check():
    specs = defs.resolve_asset_graph().asset_check_keys
    found: dict[str, list[str]] = {}
    for key in sorted(specs):
        assert defs.resolve_asset_graph().get_check_spec(key).blocking, key
        found.setdefault(key.asset_key.to_user_string(), []).append(key.name)
    assert found == CHECKS


@pytest.mark.parametrize("name", ["refresh", "retrain"])
def test_both_jobs_run_all_that_is_published_so_that_nothing_looks_stale(name):
    assert _keys(defs.resolve_job_def(name)) == {key for key, (group, _) in GRAPH.items() if group != "comparison"}


def test_what_a_refresh_makes_is_expected_every_night_and_nothing_else():
    daily = {key for key, spec in SPECS.items() if spec.freshness_policy and spec.automation_condition}
    learned = {"behaviour_embeddings", "codebooks", "fusion", "recommender"}
    assert daily == {key for key, (group, _) in GRAPH.items() if group != "comparison"} - learned


def test_loading_warns_of_nothing():
    code = "import sidlake.assets.definitions as found; found.defs.resolve_asset_graph()"
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=True)
    assert not [line for line in done.stderr.splitlines() if "dagster" in line.lower() and "warning" in line.lower()]


def test_a_prefix_that_dagster_cannot_name_is_refused():
    with pytest.raises(RecipeError, match="prefix of a catalogue"):
        defs_for("none.toml", "none", "my shoes")


def test_compare_runs_the_comparisons_and_nothing_that_is_published():
    assert _keys(defs.resolve_job_def("compare")) == {key for key, (group, _) in GRAPH.items() if group == "comparison"}


@pytest.mark.parametrize("name", ["refresh", "retrain"])
def test_jobs_include_all_checks_and_say_which_job_they_are(name):
    job = defs.resolve_job_def(name)
    assert {key.name for key in job.asset_layer.asset_graph.asset_check_keys} == {
        check for names in CHECKS.values() for check in names
    }
    assert job.run_tags[JOB_TAG] == name


@pytest.mark.parametrize("name", ["refresh", "retrain", "__ASSET_JOB"])
def test_runs_stay_in_one_process(name):
    assert defs.resolve_job_def(name).executor_def.name == "in_process"


def _keys(job: dg.JobDefinition) -> set[str]:
    return {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
