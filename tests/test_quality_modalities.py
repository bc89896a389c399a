"""What each modality knows by itself, against a brute force, and what fusing gains or loses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sidlake.pipelines.fit_inputs.split import keyed_sessions, ordered_events
from sidlake.pipelines.recipe import load_recipe
from sidlake.quality.gates import gates_in_force, judge
from sidlake.quality.measure import measure
from sidlake.quality.metrics.hit_rate import embedding_hit_rate, session_hits
from sidlake.quality.metrics.neighbours import ExactSearch
from sidlake.quality.metrics.sessions import Sessions
from sidlake.quality.modalities import hits_alone
from sidlake.quality.readings import reading_of
from sidlake.warehouse.embeddings import matrix_for
from sidlake.warehouse.releases import get
from sidlake.warehouse.tables import Warehouse

NUM_ITEMS, NUM_GROUPS, NUM_SESSIONS, K = 400, 40, 600, 10


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(vectors, present, sessions, k):
    """Return the sessions that hit, each item's k nearest being sorted out of all that have a vector."""
    rows = np.flatnonzero(present)
    near = {}
    for row in rows:
        others = rows[rows != row]
        order = np.argsort(-(unit(vectors[others]) @ unit(vectors[row][None])[0]), kind="stable")
        near[row] = set(others[order[:k]])
    parts = np.split(sessions.items_flat, sessions.offsets[1:-1])
    return np.array([any(target in near.get(item, ()) for item in of) for of, target in zip(parts, sessions.targets, strict=True)])


def the_sessions(items, targets):
    offsets = np.arange(0, items.size + 1, items.shape[1])
    return Sessions(items_flat=items.ravel().astype(np.int64), offsets=offsets, targets=targets.astype(np.int64))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), arrays.arrays(bool, 25), st.integers(1, 30))
def test_a_modality_hits_what_a_brute_force_among_its_items_hits_and_misses_the_rest(seed, present, k):
    rng = np.random.default_rng(seed)
    vectors, whole = rng.normal(size=(25, 4)).astype(np.float32), rng.normal(size=(25, 4)).astype(np.float32)
    sessions = the_sessions(rng.integers(-1, 25, (30, 3)), rng.integers(-1, 25, 30))
    fused = session_hits(ExactSearch(whole), sessions, num_items=25, k=k)
    alone = hits_alone(vectors, present, fused, sessions, k=k)
    np.testing.assert_array_equal(alone.sessions_S, fused.sessions_S)
    np.testing.assert_array_equal(alone.hits_S, brute_force(vectors, present, sessions, k)[fused.sessions_S])


@pytest.fixture(scope="module")
def catalogue():
    """Items of forty groups; users stay within a group. Behaviour knows the groups, text half of them, pictures nothing."""
    rng = np.random.default_rng(3)
    group = np.arange(NUM_ITEMS) % NUM_GROUPS
    centres = rng.normal(size=(NUM_GROUPS, 16))
    behaviour = unit(centres[group] + 0.3 * rng.normal(size=(NUM_ITEMS, 16)))
    text = unit(
        np.where((group < NUM_GROUPS // 2)[:, None], rng.normal(size=(NUM_GROUPS, 16))[group], 0)
        + 0.3 * rng.normal(size=(NUM_ITEMS, 16))
    )
    picture = unit(rng.normal(size=(NUM_ITEMS, 16)))
    first = rng.integers(0, NUM_ITEMS, NUM_SESSIONS)
    steps = NUM_GROUPS * rng.integers(1, NUM_ITEMS // NUM_GROUPS, (NUM_SESSIONS, 2))
    sessions = the_sessions(np.stack([first, (first + steps[:, 0]) % NUM_ITEMS], axis=1), (first + steps[:, 1]) % NUM_ITEMS)
    return {"behaviour": behaviour, "text": text, "picture": picture}, sessions


def measured(catalogue, weights):
    """Return metrics of the vectors joined with these weights, and the verdict on the fusion."""
    vectors, sessions = catalogue
    fused = np.concatenate([weight * vectors[name] for name, weight in weights.items()], axis=1).astype(np.float32)
    codes = np.stack([np.arange(NUM_ITEMS) // 20, np.arange(NUM_ITEMS) % 20], axis=1)
    found = measure(
        codes, codes, widths=[20, 20], vectors_ND=fused, sessions=sessions, k=K,
        decode=lambda of: np.zeros((len(of), fused.shape[1]), np.float32),
        modalities=((name, vectors[name].astype(np.float32), np.ones(NUM_ITEMS, bool)) for name in weights),
    )  # fmt: skip
    (verdict,) = (one for one in judge(found, gates_in_force([])) if one.metric == "ehr_fused_over_modality")
    return {one.metric: one.value for one in found if one.level is None}, verdict


def test_a_fusion_that_drowns_what_one_modality_knew_warns_and_says_so(catalogue):
    values, verdict = measured(catalogue, {"behaviour": 1.0, "picture": 2.0})
    assert values["ehr_modality_behaviour"] > values["ehr_raw"] + 0.1 > values["ehr_modality_picture"] + 0.1
    assert values["ehr_raw"] - values["ehr_modality_behaviour"] < values["ehr_fused_over_modality"] < 0
    assert (verdict.verdict, "below the minimum 0" in verdict.reason) == ("warn", True)


def test_a_fusion_that_keeps_what_the_best_modality_knew_passes(catalogue):
    values, verdict = measured(catalogue, {"behaviour": 1.0, "text": 0.5})
    assert values["ehr_modality_behaviour"] > values["ehr_modality_text"]
    assert values["ehr_fused_over_modality"] >= 0
    assert verdict.verdict == "pass"


def test_a_modality_alone_is_scored_as_vectors_are(catalogue):
    values, _ = measured(catalogue, {"text": 1.0})
    assert values["ehr_modality_text"] == values["ehr_raw"]
    assert values["ehr_modality_text_ci_half_width"] == values["ehr_raw_ci_half_width"]
    assert values["ehr_fused_over_modality"] == 0.0


def test_few_sessions_give_rates_and_no_verdict(catalogue):
    vectors, sessions = catalogue
    few = Sessions(items_flat=sessions.items_flat[:100], offsets=sessions.offsets[:51], targets=sessions.targets[:50])
    values, verdict = measured((vectors, few), {"behaviour": 1.0, "picture": 2.0})
    assert values["ehr_modality_behaviour"] > values["ehr_raw"]
    assert (values["ehr_fused_over_modality"], verdict.verdict) == (None, "info")


def test_each_modality_s_rate_is_read_under_its_name():
    reading = reading_of("ehr_modality_graph vectors")
    assert (reading.title, reading.unit, reading.group) == ("Hit rate of graph vectors alone", "share", "hit_rate")
    assert reading_of("ehr_modality_text_ci_half_width").title == "Hit rate of text alone, half of the interval"
    assert "one modality's own vectors" in reading.sentence


def test_a_release_has_the_rate_of_each_fused_modality_and_its_report_the_sentence(shop):
    lake, recipe = Warehouse(shop.warehouse), load_recipe(shop.recipe)
    release = get(lake)
    items = lake.read("items", version=release.tables["items"], columns=["item_id", "content_hash"]).sort_by("item_id")
    embeddings = lake.scan("item_embeddings", version=release.tables["item_embeddings"])
    text, present = matrix_for(items, embeddings, "text", release.encoders["text"])
    events = ordered_events(lake.read("interactions", version=release.tables["interactions"]))
    sessions = keyed_sessions(events, recipe.split, items.column("item_id")).sessions
    rows = lake.read("sid_quality", version=release.tables["sid_quality"]).to_pylist()
    values = {row["metric"]: row["value"] for row in rows if row["level"] is None}
    assert present.all()
    assert values["ehr_modality_text"] == embedding_hit_rate(text, sessions).value
    assert {name for name in values if name.startswith("ehr_modality_") and not name.endswith("width")} == {
        f"ehr_modality_{name}" for name in recipe.encoders.fusion
    }
    (page,) = (shop.warehouse / "reports").glob("*.html")
    assert reading_of("ehr_modality_text").sentence.replace("'", "&#39;") in page.read_text()
