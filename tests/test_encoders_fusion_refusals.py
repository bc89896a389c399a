"""Settings, modalities and pairs that no fusion can be made of: each a named error."""

import numpy as np
import pytest
from fusion_sample import NUM_ROWS, WEIGHTS, config_of, fit, modalities

from sidlake.encoders.fusion.config import FuseConfig
from sidlake.encoders.fusion.fusion import Fusion, FusionConfig
from sidlake.errors import EncoderError


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        ("concat", {"dim": 4}, r"fuse.dim is no setting of kind 'concat'; it belongs to pca, cca, contrastive"),
        ("pca", {"target": "text"}, "fuse.target is no setting of kind 'pca'"),
        ("pca", {"dim": 17}, "fuse.dim of kind 'pca' must be at most 16"),
        ("cca", {"dim": 7}, "fuse.dim of kind 'cca' must be at most 6"),
        ("pca", {"dim": 0}, "fuse.dim must be above 0"),
        ("cca", {"ridge": -1.0}, "must not be negative"),
        ("align", {"target": "image"}, r"fuse.target must be one of \['text', 'behaviour'\], got 'image'"),
        ("contrastive", {"temperature": 0.0}, "fuse.temperature must be above 0"),
        ("contrastive", {"batch_size": 1}, "fuse.batch_size must be at least 2"),
        ("magic", {}, "fuse.kind must be one of concat, plain, rank, pca, cca, align, contrastive, neighbours, got 'magic'"),
    ],
)
def test_setting_that_does_not_fit_the_kind_is_a_value_error(kind, settings, says):
    with pytest.raises(ValueError, match=says):
        FusionConfig(weights=WEIGHTS, fuse=FuseConfig(kind=kind, **settings))


def test_kinds_that_do_not_fit_the_modalities_are_value_errors():
    with pytest.raises(ValueError, match="needs at least 2"):
        config_of("cca", WEIGHTS[:1])
    with pytest.raises(ValueError, match="takes vectors as they are"):
        FusionConfig(weights=WEIGHTS, fuse=FuseConfig(kind="plain"))


@pytest.mark.parametrize("kind", ["cca", "align"])
def test_modalities_that_no_item_has_together_are_refused(kind):
    vectors, present = modalities()
    present["behaviour"] = ~present["text"] | (np.arange(NUM_ROWS) > NUM_ROWS // 2)
    present["text"] = ~present["behaviour"]
    with pytest.raises(EncoderError, match=r"0 of 700 items have (text and behaviour|behaviour and text) together"):
        fit(kind, (vectors, present))


@pytest.mark.parametrize(
    ("pairs", "error", "says"),
    [
        (None, EncoderError, "of 0 pairs none"),
        (np.empty((0, 2), np.int64), EncoderError, "of 0 pairs none"),
        (np.array([[0, 1]]), EncoderError, "of 1 pairs none has vectors for both"),  # the first three rows have no modality
        (np.array([[5, NUM_ROWS]]), ValueError, "pairs must name rows 0 to 699, got 5 to 700"),
        (np.array([[5, -1]]), ValueError, "pairs must name rows 0 to 699"),
        (np.array([5, 6]), ValueError, r"pairs must be whole numbers \[P, 2\]"),
        (np.array([[5.0, 6.0]]), ValueError, r"pairs must be whole numbers \[P, 2\]"),
    ],
)
def test_pairs_that_say_nothing_are_refused(pairs, error, says):
    vectors, present = modalities()
    with pytest.raises(error, match=says):
        Fusion.fit(vectors, present, config_of("contrastive"), pairs_P2=pairs)
