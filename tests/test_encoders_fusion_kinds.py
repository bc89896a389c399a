"""The kinds of fusion: each against an oracle, and the laws that all of them keep."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from fusion_sample import KINDS, NUM_ROWS, WEIGHTS, config_of, fit, modalities, pairs_of, taken, up_to_sign
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.linalg import orthogonal_procrustes
from scipy.stats import rankdata, spearmanr
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA

from sidlake.encoders.fusion.config import FuseConfig
from sidlake.encoders.fusion.fusion import Fusion, FusionConfig
from sidlake.errors import ArtifactError, EncoderError


@pytest.fixture(scope="module")
def fitted():
    return {(kind, unit): fit(kind, unit=unit) for kind in KINDS for unit in (False, True)}


# --------------------------------------------------------------------------------------------------------------------- oracles


def test_plain_is_the_vectors_side_by_side():
    vectors, present = modalities(whole=True)
    fused = fit("plain", (vectors, present)).transform(vectors, present)
    assert np.array_equal(fused, np.hstack([vectors["text"], vectors["behaviour"]]))


def test_pca_is_sklearn_s_pca_of_the_blocks_side_by_side():
    data = modalities()
    blocks = fit("concat", data).transform(*data)
    expected = PCA(5, svd_solver="full").fit_transform(blocks.astype(np.float64))
    up_to_sign(fit("pca", data, dim=5).transform(*data), expected, atol=2e-5)


def test_cca_of_two_modalities_is_the_sum_of_sklearn_s_variates():
    data = modalities(whole=True)
    weights = (("text", 1.0, 14), ("behaviour", 1.0, 8))
    fused = fit("cca", data, weights, dim=3, ridge=0.0).transform(*data)
    x, y = (data[0][name].astype(np.float64) for name in ("text", "behaviour"))
    # sklearn's default scaling changes no variate; its own have unit variance with N - 1 degrees of freedom
    x_variates, y_variates = CCA(3, tol=1e-12, max_iter=5000).fit_transform(x, y)
    variates = [v / v.std(axis=0) for v in (x_variates, y_variates)]
    up_to_sign(fused, (variates[0] + variates[1]) / np.sqrt(2), atol=2e-3)


def test_cca_of_three_modalities_finds_the_cause_they_share():
    rng = np.random.default_rng(0)
    cause = rng.standard_normal(2000)
    vectors = {name: np.column_stack([5 * rng.standard_normal((2000, 4)), cause]).astype(np.float32) for name in "abc"}
    for rows in vectors.values():
        rows[:] = rows @ np.linalg.qr(rng.standard_normal((5, 5)))[0]
    present = {name: np.ones(2000, bool) for name in "abc"}
    fused = Fusion.fit(vectors, present, config_of("cca", tuple((name, 1.0, 5) for name in "abc"), dim=1)).transform(
        vectors, present
    )
    assert abs(np.corrcoef(fused[:, 0], cause)[0, 1]) > 0.99


def test_cca_is_fitted_on_the_items_that_have_every_modality():
    vectors, present = modalities()
    together = present["text"] & present["behaviour"]
    weights = (("text", 1.0, 14), ("behaviour", 1.0, 8))
    fused = fit("cca", (vectors, present), weights, dim=3, ridge=0.0).transform(vectors, present)[together]
    x, y = (vectors[name][together].astype(np.float64) for name in ("text", "behaviour"))
    variates = [v / v.std(axis=0) for v in CCA(3, tol=1e-12, max_iter=5000).fit_transform(x, y)]
    up_to_sign(fused - fused.mean(axis=0), (variates[0] + variates[1]) / np.sqrt(2), atol=2e-3)


def test_weight_of_cca_scales_a_modality_s_variates_and_turns_none():
    vectors, present = modalities(whole=True)
    only = {"text": np.zeros(NUM_ROWS, bool), "behaviour": np.ones(NUM_ROWS, bool)}
    heavy, light = (fit("cca", (vectors, present), (WEIGHTS[0], ("behaviour", w, 6))) for w in (1.0, 0.25))
    np.testing.assert_allclose(light.transform(vectors, only), heavy.transform(vectors, only) / 4, atol=1e-5)
    assert np.abs(heavy.transform(vectors, only)).max() > 0.5


def test_align_turns_by_scipy_s_orthogonal_procrustes():
    data = modalities(whole=True)
    weights = (("behaviour", 0.7, 6), ("text", 1.0, 6))
    blocks = fit("concat", data, weights).transform(*data).astype(np.float64)
    behaviour, text = blocks[:, :6], blocks[:, 6:]
    rotation, _ = orthogonal_procrustes(text, behaviour)
    np.testing.assert_allclose(fit("align", data, weights).transform(*data), behaviour + text @ rotation, atol=1e-5)


@pytest.mark.parametrize("target", ["text", "behaviour"])
def test_align_leaves_the_target_as_it_is_and_the_fused_rows_in_its_space(target):
    vectors, present = modalities()
    other = next(name for name in vectors if name != target)
    alone = {**present, other: np.zeros(NUM_ROWS, bool)}
    fused = fit("align", target=target).transform(vectors, alone)
    dims = dict((name, dim) for name, _, dim in WEIGHTS)
    start = 0 if target == "text" else dims["text"]
    np.testing.assert_allclose(fused, fit("concat").transform(vectors, present)[:, start : start + dims[target]], atol=1e-6)


def test_align_brings_the_same_item_s_vectors_nearer_than_any_of_many_rotations():
    data = modalities(whole=True)
    weights = (("behaviour", 1.0, 6), ("text", 1.0, 6))
    blocks = fit("concat", data, weights).transform(*data).astype(np.float64)
    turned = fit("align", data, weights).transform(*data) - blocks[:, :6]
    best = (turned * blocks[:, :6]).sum()
    rng = np.random.default_rng(0)
    for _ in range(50):
        rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
        assert ((blocks[:, 6:] @ rotation) * blocks[:, :6]).sum() < best


def test_rank_gives_random_pairs_inner_products_that_spread_as_the_weights_say():
    vectors, present = modalities(whole=True)
    fused = fit("rank", (vectors, present)).transform(vectors, present).astype(np.float64)
    for block, weight in ((fused[:, :10], 1.0), (fused[:, 10:], 0.7)):
        products = block @ block.T
        assert products[~np.eye(NUM_ROWS, dtype=bool)].std() == pytest.approx(weight, rel=0.02)


def borda(blocks):
    """Return for each item the sum over modalities of the ranks that its similarity to it gives to every item."""
    return sum(np.apply_along_axis(rankdata, 1, block @ block.T) for block in blocks)


def test_rank_orders_items_more_like_borda_s_count_of_ranks_than_concat_does():
    # few directions against many: at equal lengths the similarities of the few spread wider and decide alone
    rng = np.random.default_rng(0)
    vectors = {name: rng.standard_normal((300, dim)).astype(np.float32) for name, dim in (("a", 4), ("b", 60))}
    present = {name: np.ones(300, bool) for name in vectors}
    weights = (("a", 1.0, 4), ("b", 1.0, 60))
    agreement = {}
    for kind in ("rank", "concat"):
        fused = Fusion.fit(vectors, present, config_of(kind, weights)).transform(vectors, present).astype(np.float64)
        count = borda([fused[:, :4], fused[:, 4:]])
        agreement[kind] = np.mean([spearmanr(count[i], (fused @ fused.T)[i]).statistic for i in range(0, 300, 10)])
    assert agreement["rank"] > 0.95
    assert agreement["rank"] > agreement["concat"] + 0.05


def groups_and_pairs(num_rows=800):
    """Items of 40 groups; the group is a faint direction of the text, and what is bought together is of one group."""
    rng = np.random.default_rng(0)
    group = rng.integers(40, size=num_rows)
    text = np.hstack([3 * rng.standard_normal((num_rows, 12)), rng.standard_normal((40, 6))[group]])
    text = (text @ np.linalg.qr(rng.standard_normal((18, 18)))[0]).astype(np.float32)
    a = rng.integers(num_rows, size=6000)
    b = np.array([rng.choice(np.flatnonzero(group == group[i])) for i in a])
    return group, text, np.stack([a, b], axis=1)[a != b]


def same_group(fused, group):
    unit = fused / np.linalg.norm(fused, axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -2)
    return float((group[scores.argmax(axis=1)] == group).mean())


def test_contrastive_finds_the_faint_direction_that_purchases_follow_where_pca_drops_it():
    group, text, pairs = groups_and_pairs()
    vectors, present = {"text": text}, {"text": np.ones(len(text), bool)}
    weights = (("text", 1.0, 18),)
    before = Fusion.fit(vectors, present, config_of("pca", weights, dim=6)).transform(vectors, present)
    config = config_of("contrastive", weights, dim=6, num_steps=150, batch_size=128, learning_rate=1e-2)
    after = Fusion.fit(vectors, present, config, pairs_P2=pairs).transform(vectors, present)
    assert same_group(before, group) < 0.1
    assert same_group(after, group) > 0.7


# ------------------------------------------------------------------------------------------------------------------------ laws


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(KINDS), unit=st.booleans(), cuts=st.lists(st.integers(1, NUM_ROWS - 1), max_size=6, unique=True))
def test_any_chunking_and_any_order_give_the_same_bytes_per_row(fitted, kind, unit, cuts):
    fusion, data = fitted[kind, unit], modalities()
    whole = fusion.transform(*data)
    order = np.random.default_rng(sum(cuts)).permutation(NUM_ROWS)
    parts = [fusion.transform(*taken(data, order[a:b])) for a, b in itertools.pairwise([0, *sorted(cuts), NUM_ROWS])]
    assert np.concatenate(parts).tobytes() == whole[order].tobytes()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "neighbours"])
@pytest.mark.parametrize("unit", [False, True])
def test_shares_are_the_covariance_with_the_whole_and_sum_to_one(fitted, kind, unit):
    fusion, (vectors, present) = fitted[kind, unit], modalities()
    shares = fusion.explained(vectors, present)
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-12)
    none = {name: np.zeros(NUM_ROWS, bool) for name in present}
    raw = fitted[kind, False]
    parts = {name: raw.transform(vectors, {**none, name: present[name]}).astype(np.float64) for name in present}
    whole = sum(parts.values())
    length = np.linalg.norm(whole, axis=1, keepdims=True) if unit else np.ones((NUM_ROWS, 1))
    length[length == 0] = 1
    centred = {name: part / length - (part / length).mean(axis=0) for name, part in parts.items()}
    variance = (sum(centred.values()) ** 2).sum()
    for name, share in shares.items():
        assert share == pytest.approx((centred[name] * sum(centred.values())).sum() / variance, abs=1e-5)


def test_shares_of_a_network_are_what_a_modality_adds_in_the_mean_of_all_orders(fitted):
    fusion, (vectors, present) = fitted["neighbours", False], modalities()
    none = {name: np.zeros(NUM_ROWS, bool) for name in present}
    whole = fusion.transform(vectors, present).astype(np.float64)
    whole -= whole.mean(axis=0)
    worth = {
        names: (fusion.transform(vectors, none | {name: present[name] for name in names}) * whole).sum() / (whole**2).sum()
        for names in [(), ("text",), ("behaviour",), ("behaviour", "text")]
    }
    assert worth[()] == 0
    text = (worth["text",] + 1 - worth["behaviour",]) / 2
    assert fusion.explained(vectors, present) == pytest.approx({"text": text, "behaviour": 1 - text}, abs=1e-6)


def test_share_of_a_modality_that_is_another_twice_over_is_half():
    vectors, _ = modalities(whole=True)
    vectors, present = {"text": vectors["text"], "again": vectors["text"]}, {n: np.ones(NUM_ROWS, bool) for n in ("text", "again")}
    config = FusionConfig(weights=(("text", 1.0, 5), ("again", 1.0, 5)), fuse=FuseConfig(kind="align"))
    shares = Fusion.fit(vectors, present, config).explained(vectors, present)
    assert shares == pytest.approx({"text": 0.5, "again": 0.5})


@pytest.mark.parametrize("kind", KINDS)
def test_item_without_any_modality_is_zeros_and_one_without_one_has_the_other_s_part(fitted, kind):
    vectors, present = modalities()
    none = {name: np.zeros(NUM_ROWS, bool) for name in present}
    fused = fitted[kind, False].transform(vectors, present)
    assert not fused[:3].any()
    lacking = present["text"] & ~present["behaviour"]
    alone = fitted[kind, False].transform(vectors, {**none, "text": present["text"]})
    assert np.array_equal(fused[lacking], alone[lacking])
    if kind != "neighbours":  # the only one that is no sum of parts
        together = fused - alone - fitted[kind, False].transform(vectors, {**none, "behaviour": present["behaviour"]})
        assert np.abs(together).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_unit_rows_have_length_one_and_the_direction_of_the_others(fitted, kind):
    data = modalities()
    unit, raw = (fitted[kind, on].transform(*data).astype(np.float64) for on in (True, False))
    assert not unit[:3].any()
    np.testing.assert_allclose(np.linalg.norm(unit[3:], axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(unit[3:], raw[3:] / np.linalg.norm(raw[3:], axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("kind", ["pca", "contrastive"])
def test_inverse_is_exact_where_every_direction_is_kept(kind):
    data = modalities(whole=True)
    fusion = fit(kind, data, (("text", 1.0, 14), ("behaviour", 0.7, 8)), dim=22)
    back = fusion.inverse(fusion.transform(*data))
    for name, vectors in data[0].items():
        np.testing.assert_allclose(back[name], vectors, atol=2e-3)


@pytest.mark.parametrize("kind", ["pca", "cca", "align", "contrastive"])
def test_inverse_of_a_shared_space_is_the_least_squares_regression_on_the_fused_rows(kind):
    data = modalities(whole=True)
    fusion = fit(kind, data, (("text", 1.0, 14), ("behaviour", 0.7, 8)))
    fused = fusion.transform(*data).astype(np.float64)
    back = fusion.inverse(fused)
    for name, vectors in data[0].items():
        centred = vectors - vectors.mean(axis=0, dtype=np.float64)
        slope = np.linalg.lstsq(fused, centred, rcond=None)[0]
        np.testing.assert_allclose(back[name], fused @ slope + vectors.mean(axis=0, dtype=np.float64), atol=2e-3)


def test_inverse_of_a_unit_fusion_takes_rows_to_have_the_mean_length(fitted):
    data = modalities()
    mean_length = np.linalg.norm(fitted["concat", False].transform(*data).astype(np.float64), axis=1).mean()
    unit_rows = fitted["concat", True].transform(*data)
    expected = fitted["concat", False].inverse(unit_rows * mean_length)
    for name, vectors in fitted["concat", True].inverse(unit_rows).items():
        np.testing.assert_allclose(vectors, expected[name], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_fitting_again_gives_the_same_fusion_and_another_seed_or_weight_another(fitted, kind):
    assert fit(kind).fusion_id == fitted[kind, False].fusion_id != fitted[kind, True].fusion_id
    if kind in ("contrastive", "neighbours"):
        assert fit(kind, seed=1).fusion_id != fitted[kind, False].fusion_id
    elif kind != "plain":
        assert fit(kind, weights=(WEIGHTS[0], ("behaviour", 0.8, 6))).fusion_id != fitted[kind, False].fusion_id


@pytest.mark.parametrize("kind", ["contrastive", "neighbours"])
def test_order_of_pairs_and_of_the_items_in_a_pair_changes_no_bit(fitted, kind):
    pairs = np.random.default_rng(1).permutation(pairs_of())[:, ::-1]
    vectors, present = modalities()
    again = Fusion.fit(vectors, present, config_of(kind), pairs_P2=pairs, pairs_window=("2020", "2021"))
    assert again.fusion_id == fitted[kind, False].fusion_id


# ------------------------------------------------------------------------------------------------------------------- artifacts

READ = """
import hashlib, sys, numpy as np
from pathlib import Path
from sidlake.encoders.fusion.fusion import Fusion
fusion = Fusion.load(Path(sys.argv[1]) / "fusion.safetensors")
data = np.load(Path(sys.argv[1]) / "data.npz")
vectors = {name: data[name] for name in ("text", "behaviour")}
present = {name: data["has_" + name] for name in vectors}
print(fusion.fusion_id, hashlib.sha256(fusion.transform(vectors, present).tobytes()).hexdigest())
"""


def test_every_kind_loads_in_another_process_and_gives_the_same_bytes(fitted, tmp_path):
    import hashlib

    vectors, present = modalities()
    for kind, unit in [*((kind, False) for kind in KINDS), ("align", True)]:
        fitted[kind, unit].save(tmp_path / "fusion.safetensors")
        np.savez(tmp_path / "data.npz", **vectors, **{f"has_{name}": has for name, has in present.items()})
        if kind not in ("align", "contrastive"):  # the other kinds in this process: another one costs a second each
            assert Fusion.load(tmp_path / "fusion.safetensors").fusion_id == fitted[kind, unit].fusion_id
            continue
        done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=True)
        digest = hashlib.sha256(fitted[kind, unit].transform(vectors, present).tobytes()).hexdigest()
        assert done.stdout.split() == [fitted[kind, unit].fusion_id, digest]


def test_fusion_remembers_how_many_pairs_there_were_and_of_which_time(fitted, tmp_path):
    fitted["contrastive", False].save(tmp_path / "fusion.safetensors")
    loaded = Fusion.load(tmp_path / "fusion.safetensors")
    assert loaded.about == {"pairs": 4000, "window": ["2020", "2021"]}
    assert loaded.config.fuse.num_steps == 20
    assert fitted["align", False].about == {}


def rewritten(path, **changes):
    """Write the file again with other values in its header."""
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["fusion"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={"fusion": json.dumps({**header, **changes})})


def test_concat_says_in_its_file_what_it_said_before_there_were_kinds(fitted, tmp_path):
    fitted["concat", False].save(tmp_path / "fusion.safetensors")
    with safe_open(tmp_path / "fusion.safetensors", framework="numpy") as file:
        header = json.loads(file.metadata()["fusion"])
    assert set(header) == {"format", "config", "fusion_id"}
    assert set(header["config"]) == {"weights", "whiten"}
    assert Fusion.load(tmp_path / "fusion.safetensors").config.fuse == FuseConfig()


def test_file_that_says_another_window_or_kind_than_was_hashed_is_refused(fitted, tmp_path):
    path = tmp_path / "fusion.safetensors"
    for kind, changes in (("contrastive", {"about": {"pairs": 1}}), ("pca", {"config": {"weights": WEIGHTS, "whiten": False}})):
        fitted[kind, False].save(path)
        rewritten(path, **changes)
        with pytest.raises(ArtifactError, match="damaged"):
            Fusion.load(path)


# ------------------------------------------------------------------------------------------------------------------ bad inputs


@pytest.mark.parametrize("kind", KINDS)
def test_vector_that_is_not_finite_names_its_row_in_every_kind(fitted, kind):
    vectors, present = modalities()
    vectors["text"][41, 3] = np.nan
    for call in (lambda: fit(kind, (vectors, present)), lambda: fitted[kind, False].explained(vectors, present)):
        with pytest.raises(EncoderError, match="'text' vector of row 41 is not finite"):
            call()
