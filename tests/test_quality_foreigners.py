"""Which new items lie far from all published ones: never those drawn like them, and those of another encoder."""

import numpy as np
import pytest

from sidlake.quality.foreigners import least_share_far
from sidlake.quality.gates import MANDATORY

LIMIT = next(gate.maximum for gate in MANDATORY if gate.metric == "foreign_item_share")
NEW = 20


def items(rng, num, *, kinds=10):
    """Return vectors of `num` items of so many kinds, half of their variance between kinds."""
    centres = np.random.default_rng(0).normal(size=(kinds, 64))
    return centres[rng.integers(0, kinds, num)] + rng.normal(size=(num, 64))


def refused(published, new):
    share = least_share_far(published, new)[1]
    return share is not None and share > LIMIT


@pytest.mark.parametrize("num", [10, 25, 50, 200])
def test_items_like_the_published_ones_are_not_refused_however_few_those_are(num):
    rng = np.random.default_rng(num)
    assert not any(refused(items(rng, num, kinds=50), items(rng, NEW, kinds=50)) for _ in range(200))


@pytest.mark.parametrize("num", [60, 200])
def test_items_of_another_encoder_are_refused(num):
    rng = np.random.default_rng(num)
    for _ in range(20):
        turn = np.linalg.qr(rng.normal(size=(64, 64)))[0]
        assert refused(items(rng, num), items(rng, NEW) @ turn)


def test_a_few_dozen_published_items_tell_nothing():
    rng = np.random.default_rng(0)
    assert least_share_far(items(rng, 49), -items(rng, NEW)) == (pytest.approx(np.zeros(NEW, bool)), None)
    assert least_share_far(items(rng, 50), -items(rng, NEW))[1] is not None


def test_no_new_items_have_no_share():
    far, share = least_share_far(items(np.random.default_rng(0), 60), np.empty((0, 64)))
    assert len(far) == 0
    assert share is None
