"""Residual VQ by gradient: as good as k-means on the same data, and the sum of its centroids."""

import numpy as np
from neural_sample import fitted, rows

from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig


def test_its_error_is_near_that_of_kmeans():
    x = rows()
    trained = fitted("residual_vq", num_steps=400)
    plain = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(16, 8)))
    errors = [np.square(x - model.decode(model.encode(x))).sum() for model in (trained, plain)]
    assert errors[0] <= 1.15 * errors[1]


def test_decoding_is_the_sum_of_centroids():
    model, x = fitted("residual_vq"), rows()
    codes = model.encode(x)
    assert np.allclose(model.decode(codes), model.centroids[0][codes[:, 0]] + model.centroids[1][codes[:, 1]])


def test_training_changes_the_start():
    first, later = fitted("residual_vq", num_steps=1), fitted("residual_vq", num_steps=200)
    assert np.abs(first.centroids[1] - later.centroids[1]).max() > 1e-3
