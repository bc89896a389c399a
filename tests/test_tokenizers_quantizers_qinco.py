"""QINCo: residual k-means before training, an implicit codebook after it."""

import numpy as np
from neural_sample import fitted, rows

from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig


def test_before_training_it_is_residual_kmeans_of_the_principal_components():
    x = rows()
    model = fitted("qinco", num_steps=0, candidates=16)
    z = model.latents(x)
    plain = ResidualKMeans.fit(z, ResidualKMeansConfig(widths=(16, 8), max_fit_rows=len(x)))
    assert np.array_equal(model.encode(x), plain.encode(z))


def test_training_makes_codes_depend_on_their_prefix_and_lowers_the_error():
    x = rows()
    before, after = fitted("qinco", num_steps=0), fitted("qinco", num_steps=300)
    first, second = after.increments([0]), after.increments([1])
    assert not np.allclose(first, second, atol=1e-4)
    assert np.allclose(before.increments([0]), before.increments([1]))
    errors = [np.square(x - model.decode(model.encode(x))).sum() for model in (before, after)]
    assert errors[1] < errors[0]


def test_the_nearest_of_all_candidates_is_found_by_brute_force():
    model, x = fitted("qinco", candidates=16), rows()[:50]
    z, codes = model.latents(x), model.encode(x)
    for row in range(50):
        left = z[row] - model.increments([])[codes[row, 0]]
        squared = np.square(left.astype(np.float64) - model.increments([codes[row, 0]])).sum(axis=1)
        assert codes[row, 1] == squared.argmin()


def test_decoding_adds_the_increments_and_leads_back():
    model, x = fitted("qinco", latent_dim=10), rows()[:20]
    codes = model.encode(x)
    total = [sum(model.increments(path[:level])[code] for level, code in enumerate(path)) for path in codes.tolist()]
    assert np.allclose(model.decode(codes), np.stack(total) @ model.own["axes"].T + model.own["mean"], atol=1e-5)
    assert np.allclose(model._to_input(model.latents(x)), x, atol=1e-5)
