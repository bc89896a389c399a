"""The codebook file: whole or absent, named by its contents, refused when it is anything else."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sidlake.errors import ArtifactError
from sidlake.tokenizers.artifact import codebook_hash, load_codebook, save_codebook
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig


@pytest.fixture(scope="module")
def model():
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    return ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(8, 4), seed=9))


def test_a_saved_codebook_loads_as_it_was(model, tmp_path):
    digest = save_codebook(model, tmp_path / "codebook.safetensors")
    loaded = load_codebook(tmp_path / "codebook.safetensors", dim=5)
    assert loaded.config == model.config
    assert all(np.array_equal(a, b) for a, b in zip(loaded.centroids + loaded.counts, model.centroids + model.counts, strict=True))
    assert digest == codebook_hash(loaded) == codebook_hash(model)


def test_the_hash_depends_on_contents_alone(model, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    assert save_codebook(model, tmp_path / "a") == save_codebook(model, tmp_path / "elsewhere" / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "elsewhere" / "b").read_bytes()


def test_another_centroid_or_seed_has_another_hash(model):
    moved = [model.centroids[0] + np.float32(1e-3), model.centroids[1]]
    reseeded = ResidualKMeansConfig(widths=(8, 4), seed=10)
    hashes = {codebook_hash(model), codebook_hash(ResidualKMeans(moved, model.counts, model.config))}
    assert len(hashes | {codebook_hash(ResidualKMeans(model.centroids, model.counts, reseeded))}) == 3


def test_the_device_of_the_fit_is_not_part_of_the_artifact(model, tmp_path):
    on_cuda = ResidualKMeans(model.centroids, model.counts, ResidualKMeansConfig(widths=(8, 4), seed=9, device="cuda"))
    assert save_codebook(on_cuda, tmp_path / "c") == codebook_hash(model)
    assert load_codebook(tmp_path / "c").config.device == "cpu"


def damage(kind, path):
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-7])
    elif kind == "one flipped bit":
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    elif kind == "pickled":
        path.write_bytes(pickle.dumps({"centroids": [1, 2, 3]}))
    elif kind == "foreign":
        save_file({"weight": np.zeros(3)}, path)
    elif kind == "a folder":
        path.unlink()
        path.mkdir()
    elif kind == "of a later version":
        path.write_bytes(path.read_bytes().replace(b'\\"version\\": \\"1\\"', b'\\"version\\": \\"2\\"'))
    else:  # a tensor is gone
        tensors = load_file(path)
        del tensors["counts.1"]
        about = {"format": "sidlake.codebook", "version": "1", "kind": "residual_kmeans", "config": {"widths": [8, 4]}}
        save_file(tensors, path, metadata={"sidlake": json.dumps(about)})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no codebook at"),
        ("empty", "not a readable safetensors file"),
        ("truncated", "not a readable safetensors file"),
        ("one flipped bit", "damaged: it hashes to"),
        ("pickled", "not a readable safetensors file"),
        ("foreign", "not a codebook this version reads"),
        ("a folder", "not a readable safetensors file"),
        ("of a later version", "not a codebook this version reads"),
        ("lacks a tensor", "do not belong together"),
    ],
)
def test_a_file_that_is_not_a_whole_codebook_is_refused(model, tmp_path, kind, words):
    path = tmp_path / "codebook.safetensors"
    save_codebook(model, path)
    damage(kind, path)
    with pytest.raises(ArtifactError, match=words):
        load_codebook(path)


def test_codebooks_of_another_dimension_are_refused(model, tmp_path):
    save_codebook(model, tmp_path / "c")
    with pytest.raises(ArtifactError, match="5 dimensions, the vectors have 384"):
        load_codebook(tmp_path / "c", dim=384)


def test_a_failed_write_leaves_the_old_file_and_no_other(model, tmp_path, monkeypatch):
    save_codebook(model, tmp_path / "c")
    before = (tmp_path / "c").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_codebook(ResidualKMeans(model.centroids[:1], model.counts[:1], ResidualKMeansConfig(widths=(8,))), tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
