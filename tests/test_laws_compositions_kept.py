"""Compositions that once broke a law, shortened to the fewest acts, each with the fault it found."""

import pytest
from composing.acts import finish, forget_clock, play
from composing.jobs import Run
from composing.sources import add_items, begin

from sidlake.errors import ReleaseConflict
from sidlake.pipelines.generation import cached_codebook

RETRAIN = ("retrain", {"override": 0})
REFRESH = ("refresh", {"override": 0, "twin": 1})

KEPT = {
    # a run that had found nothing new said so when it was executed again, though what it had built on was rolled back meanwhile
    "a dead run is executed again after a rollback": (
        "quiet",
        [
            RETRAIN,
            ("add_items", {"num": 27402, "pick": 45430}),
            ("refresh", {"override": 19683, "twin": 30727}),
            ("crash", {"job": 348, "at": 39561}),
            ("rollback", {"pick": 36335}),
            ("run_again", {"how": 8283, "override": 45575}),
        ],
    ),
    # the run had left the base's vector behind when the item had another content; made again of a table that had changed since, it
    # was another one under the same name
    "an item has its former content again in a run that is executed again": (
        "list",
        [
            RETRAIN,
            ("change_item", {"pick": 5709}),
            ("crash", {"job": 51679, "at": 47841}),
            ("add_items", {"num": 2593, "pick": 1762}),
            ("add_items", {"num": 36853, "pick": 14122}),
            ("run_again", {"how": 13526, "override": 55956}),
            ("rollback", {"pick": 64040}),
            ("refresh", {"override": 51793, "twin": 54854}),
            ("add_items", {"num": 27493, "pick": 12371}),
            ("remove_items", {"pick": 36626, "num": 25362}),
            ("remove_items", {"pick": 23500, "num": 17710}),
            ("run_again", {"how": 18140, "override": 1019}),
        ],
    ),
    # a vacuum freed the fusion of a release whose tables it left: a rollback made that current, and no run could go on from there
    "a rollback to a release whose generation was vacuumed": (
        "missing",
        [
            RETRAIN,
            ("add_items", {"num": 44843, "pick": 34652}),
            ("import_sids", {"pick": 48105}),
            ("add_items", {"num": 19154, "pick": 3612}),
            ("rollback", {"pick": 35253}),
            ("vacuum", {"keep": 32948, "grace": 32628}),
            ("rollback", {"pick": 9369}),
            ("refresh", {"override": 5961, "twin": 32867}),
        ],
    ),
    # a metric that is undefined for one item is no number, and a release's metrics are JSON, which has none such
    "all items but one go quiet": ("sales", [RETRAIN, ("remove_items", {"pick": 0, "num": 7}), REFRESH]),
    # by its times the new content was older than the SID, so that the new vector was held against codes of the old one, for ever
    "an item changes while the clock is set back": (
        "list",
        [RETRAIN, ("clock", {"pick": 3}), ("change_item", {"pick": 7}), REFRESH],
    ),
    # which time is a stray depends on how many items there are: those of new files were counted with the base, not with all
    "quiet items retire by the newest event that is no stray": (
        "quiet",
        [
            RETRAIN,
            ("add_items", {"num": 2, "pick": 0}),
            ("add_events", {"pick": 7, "num": 4, "how": 0}),
            ("add_events", {"pick": 11, "num": 4, "how": 0}),
            ("add_events", {"pick": 10, "num": 4, "how": 0}),
            ("add_events", {"pick": 46, "num": 4, "how": 0}),
            ("add_events", {"pick": 21, "num": 4, "how": 0}),
            REFRESH,
            ("remove_items", {"pick": 8, "num": 7}),
            REFRESH,
            ("remove_items", {"pick": 36, "num": 7}),
            REFRESH,
            ("remove_items", {"pick": 36, "num": 7}),
            REFRESH,
        ],
    ),
    # the new generation gave no SID to an item that it retired, so that its return looked like that of a new one, without events
    "an item that a retrain retired comes back": (
        "sales",
        [RETRAIN, ("remove_items", {"pick": 8, "num": 7}), RETRAIN, ("return_item", {"pick": 0, "num": 1}), REFRESH],
    ),
    # the release before knew nothing of what had been rolled back: its SIDs were given to other items
    "new items after a rollback": (
        "list",
        [
            RETRAIN,
            ("add_items", {"num": 2, "pick": 0}),
            REFRESH,
            ("rollback", {"pick": 0}),
            ("lift", {}),
            ("remove_items", {"pick": 11, "num": 2}),
            ("add_items", {"num": 2, "pick": 0}),
            REFRESH,
        ],
    ),
    # duplicate events, a duplicate vector that stopped every later refresh, two SIDs of one item
    "a second machine after a rollback": (
        "sales",
        [
            RETRAIN,
            ("add_items", {"num": 2, "pick": 1}),
            REFRESH,
            ("change_item", {"pick": 7}),
            ("rollback", {"pick": 0}),
            ("lift", {}),
            ("second_writer", {"pick": 1, "order": 61515}),
            REFRESH,
        ],
    ),
    # a modality that the generation does not know was a KeyError; other widths were recorded over the old codebooks
    "another modality and other widths before a refresh": (
        "list",
        [
            RETRAIN,
            ("edit_recipe", {"pick": 5}),
            ("add_items", {"num": 0, "pick": 0}),
            REFRESH,
            RETRAIN,
            ("edit_recipe", {"pick": 1}),
            ("add_items", {"num": 0, "pick": 0}),
            REFRESH,
            RETRAIN,
        ],
    ),
    # a selection without the sequences published the old ones; one without the fusion ended in an assertion
    "all steps but one, each of them once": (
        "missing",
        [
            RETRAIN,
            *(
                act
                for place in range(10)
                for act in (
                    ("add_items", {"num": 0, "pick": 0}),
                    ("add_events", {"pick": place, "num": 4, "how": 0}),
                    ("partial", {"pick": 0b1111111111 ^ (1 << place), "job": 0, "override": 0}),
                )
            ),
            REFRESH,
        ],
    ),
    # a run whose state was gone ended in success and published nothing
    "a dead run executed again without what it had noted": (
        "list",
        [
            RETRAIN,
            ("add_items", {"num": 0, "pick": 0}),
            ("crash", {"job": 0, "at": 40}),
            ("vacuum", {"keep": 0, "grace": 0}),
            ("run_again", {"how": 1, "override": 0}),
            REFRESH,
        ],
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_composition_that_once_broke_a_law_keeps_all(name, tmp_path):
    kind, acts = KEPT[name]
    state = begin(tmp_path / "shop", kind)
    try:
        for act in acts:
            assert play(state, act) == [], act
        assert finish(state) == []
    finally:
        forget_clock()


def test_two_machines_that_fit_the_same_generation_leave_each_other_its_codebooks(tmp_path):
    state = begin(tmp_path / "shop", "list")
    first, second = (state.shop.running(Run(job="retrain", override=True), on=machine) for machine in ("w", "other"))
    _until("release", first)
    add_items(state, 2, 1)  # so that the second machine's codebooks are others
    _until("assign", second)
    for _ in first:
        pass
    with pytest.raises(ReleaseConflict):
        _until("nothing", second)
    cached_codebook.cache_clear()  # as a process of its own, which reads the file
    for _ in state.shop.running(Run(job="refresh", override=True)):
        pass


def _until(step, running):
    """Let a run go on to the beginning of `step`."""
    for name in running:
        if name == step:
            return
