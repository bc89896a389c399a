"""Law 4 to the bit through a whole retrain: threads and instruction sets decide nothing about a release."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def driver():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return SimpleNamespace(**runpy.run_path(str(FOLDER / "same_hash.py")))


def test_pictures_categories_and_events_give_one_hash_on_one_thread_on_four_and_without_avx512(driver):
    rows = driver.run_all(500, [1, 4], ["native", "avx2"], given=True)
    found = driver.summary(rows)
    assert found["equal_threads"], found["differing"]
    assert found["equal_instructions"], found["differing"]
    assert {"semantic_ids", "sid_quality", "user_sequences", "codebooks"} <= rows[0]["tables"].keys()


def test_two_hashes_are_told_with_the_tables_that_differ(driver):
    rows = [
        {"instructions": "native", "content_hash": "a", "tables": {"items": "1", "semantic_ids": "2"}},
        {"instructions": "native", "content_hash": "b", "tables": {"items": "1", "semantic_ids": "3"}},
    ]
    assert driver.summary(rows) == {"equal_threads": False, "equal_instructions": False, "differing": ["semantic_ids"]}
