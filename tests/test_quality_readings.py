import re
from pathlib import Path

import numpy as np
import pytest

from sidlake.quality.gates import GUARDS, MANDATORY, REMEDIES
from sidlake.quality.measure import Former, measure
from sidlake.quality.metrics.sessions import Sessions
from sidlake.quality.readings import GROUPS, READINGS, reading_of

WIDTHS = (4, 15)
PAGE = (Path(__file__).parent.parent / "docs" / "reading-quality.md").read_text(encoding="utf-8")
OF_THE_CHECK_STEP = {
    "ehr_sampled_share",
    "leaked_session_share",
    "foreign_item_share",
    "raw_largest_group_share",
    "level_largest_share",
}
OF_THE_CHECK_STEP |= {"staleness_share", "staleness_level_share", "staleness_growth"}
OF_THE_CHECK_STEP |= {"gone_item_share", "changed_item_share", "lost_event_share", "rejected_share", "rejected_share_rise"}
OF_THE_CHECK_STEP |= {"without_vector_share_rise", "confused_text_share"}
"""Metrics that the pipelines add to those of `measure`."""


@pytest.fixture(scope="module")
def measured():
    """The names of all metrics, of 60 items with categories, sessions and a former release."""
    draw = np.random.default_rng(5)
    centroids = [draw.normal(size=(width, 6)) for width in WIDTHS]
    codes = np.stack([np.arange(60) // 15, np.arange(60) % 15], axis=1)
    taken = np.stack([draw.permutation(60)[:4] for _ in range(40)])
    sessions = Sessions(items_flat=taken[:, :3].ravel(), offsets=np.arange(0, 121, 3), targets=taken[:, 3])
    found = measure(
        draw.integers(0, WIDTHS, size=(60, 2)),
        codes,
        widths=WIDTHS,
        vectors_ND=draw.normal(size=(60, 6)).astype(np.float32),
        decode=lambda of: sum(centroids[level][of[:, level]] for level in range(of.shape[1])),
        sessions=sessions,
        to_input_space=lambda vectors: vectors,
        k=5,
        categories_N=draw.integers(0, 3, size=60),
        former=Former(codes_NL=codes, widths=WIDTHS),
        modalities=[("text", draw.normal(size=(60, 6)), np.ones(60, bool))],
    )
    return sorted({metric.metric for metric in found})


def test_every_measured_metric_has_a_title_a_unit_a_group_and_a_sentence(measured):
    unread = [name for name in measured if not (reading_of(name).sentence and reading_of(name).unit and reading_of(name).group)]
    assert (unread, len(measured) > 60) == ([], True)


def test_everything_that_is_read_is_measured(measured):
    assert set(READINGS) - set(measured) == OF_THE_CHECK_STEP


def test_every_metric_that_stands_for_itself_is_on_the_page():
    named = re.findall(r"`([a-z0-9_…]+)`", PAGE)
    said = re.compile("|".join(re.escape(name).replace("…", ".*") for name in named))
    assert [name for name in READINGS if not said.fullmatch(name)] == []


def test_every_metric_with_a_mandatory_gate_or_a_remedy_can_be_read():
    assert [name for name in (*REMEDIES, *(gate.metric for gate in (*MANDATORY, *GUARDS))) if not reading_of(name).sentence] == []


def test_titles_differ(measured):
    titles = [reading_of(name).title for name in {*measured, *READINGS}]
    assert sorted({title for title in titles if titles.count(title) > 1}) == []


def test_every_sentence_is_one_a_person_can_read():
    for name, reading in READINGS.items():
        assert re.fullmatch(r"[A-Z].+\.", reading.sentence), name
        assert len(reading.sentence) < 220, name
        assert len(reading.title) < 45, name
        assert reading.group in GROUPS, name


def test_a_share_s_family_keeps_its_unit_and_group():
    rarest, tied = reading_of("ehr_num_sessions_popularity_1"), reading_of("ehr_raw_tie_rate")
    assert (rarest.title, rarest.unit, rarest.group) == ("Sessions scored, popularity 1", "sessions", "hit_rate")
    assert (tied.title, tied.unit, tied.group) == ("Hit rate of the vectors, ties", "share", "hit_rate")


def test_an_unknown_metric_keeps_its_name_and_says_nothing():
    assert (reading_of("home_made").title, reading_of("home_made").sentence) == ("home_made", "")


def test_every_sentence_stands_alone():
    assert [name for name, reading in READINGS.items() if reading.sentence.startswith("The same")] == []
