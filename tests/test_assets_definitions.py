from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from sidlake.assets.definitions import defs
from sidlake.assets.resources import JOB_TAG

# key: (group, what it depends on). A change of the graph is a change of this literal.
GRAPH = {
    "items": ("catalog", []),
    "interactions": ("catalog", ["items"]),
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
    "codebooks": ("semantic_ids", ["fused_embeddings"]),
    "semantic_ids": ("semantic_ids", ["codebooks", "fused_embeddings", "items"]),
    "user_sequences": ("features", ["interactions", "semantic_ids"]),
    "sid_trie": ("features", ["semantic_ids"]),
    "sid_quality": ("quality", ["fused_embeddings", "interactions", "semantic_ids"]),
    "release": (
        "release",
        [
            "codebooks", "fused_embeddings", "interactions", "items", "rejected_rows", "semantic_ids", "sid_quality", "sid_trie",
            "user_sequences",
        ],
    ),
    "quality_report": ("quality", ["release"]),
    "recommender": ("training", ["release", "semantic_ids", "sid_trie", "user_sequences"]),
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

LEARNED = {"behaviour_embeddings", "codebooks", "fusion", "recommender"}

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


def test_retrain_runs_everything_and_refresh_learns_nothing_new():
    selected = {name: _keys(defs.resolve_job_def(name)) for name in ("refresh", "retrain")}
    published = {key for key, (group, _) in GRAPH.items() if group != "comparison"}
    assert selected["retrain"] == published
    assert selected["refresh"] == published - LEARNED


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
