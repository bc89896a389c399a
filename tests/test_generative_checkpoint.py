from __future__ import annotations

import hashlib
import json
import pickle
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sidlake.errors import ArtifactError, NotFoundError, StaleReleaseError, StorageError
from sidlake.generative.catalogue import TokenSpace
from sidlake.generative.checkpoint import load_checkpoint, read_checkpoint_info, save_checkpoint
from sidlake.generative.models.item_facts import ItemFacts
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.models.tiger import GenerativeModel
from sidlake.generative.recommenders import DecoderRecommender
from sidlake.generative.sequences import SequenceReader
from sidlake.generative.timelines import whole_histories

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("generative_sample.py"))))
HASH = "ab" * 32


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GenerativeModel(TokenSpace(widths=SAMPLE.WIDTHS), SAMPLE.tiny_config()).eval()


def save(folder: Path, model: GenerativeModel) -> Path:
    save_checkpoint(
        folder,
        model,
        release_id="r000007",
        generation="g0002",
        codebook_hash=HASH,
        widths=SAMPLE.WIDTHS,
        config=SAMPLE.tiny_config(),
    )
    return folder


@pytest.fixture
def saved(tmp_path, model):
    return save(tmp_path / "checkpoints" / "r000007", model)


def test_a_loaded_model_scores_exactly_as_the_saved_one(saved, model):
    loaded = load_checkpoint(saved, generation="g0002", codebook_hash=HASH)
    history = torch.from_numpy(np.array([[0, 0, 0, 2, 5, 9, 3, 6, 10, 4, 7, 11]]))
    target = torch.tensor([[4, 8, 13]])
    assert torch.equal(loaded.loss(history, target), model.loss(history, target))
    assert not loaded.training


def test_a_checkpoint_knows_its_release(saved):
    info = read_checkpoint_info(saved)
    assert (info.release_id, info.generation, info.codebook_hash) == ("r000007", "g0002", HASH)
    assert (info.widths, info.config) == (SAMPLE.WIDTHS, SAMPLE.tiny_config())


@pytest.mark.parametrize(("generation", "codebook_hash"), [("g0003", HASH), ("g0002", "cd" * 32)])
def test_another_generation_or_other_codebooks_are_refused(saved, generation, codebook_hash):
    with pytest.raises(StaleReleaseError, match="train on the current release") as caught:
        load_checkpoint(saved, generation=generation, codebook_hash=codebook_hash)
    message = str(caught.value)
    assert "g0002" in message
    assert generation in message
    assert "r000007" in message


def test_a_folder_that_does_not_exist_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="train first"):
        load_checkpoint(tmp_path / "none", generation="g0002", codebook_hash=HASH)


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def put_a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": [1.0]}))


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, put_a_pickle, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.json"])
def test_a_damaged_file_is_refused(saved, name, damage):
    damage(saved / name)
    with pytest.raises(ArtifactError, match="train again"):
        load_checkpoint(saved, generation="g0002", codebook_hash=HASH)


def rewrite(saved: Path, **changes: object) -> None:
    info = json.loads((saved / "checkpoint.json").read_text())
    (saved / "checkpoint.json").write_text(json.dumps({**info, **changes}))


@pytest.mark.parametrize("changes", [{"format": "other-9"}, {"extra": 1}, {"config": {"d_model": 0}}, {"config": {"surprise": 1}}])
def test_information_of_another_format_is_refused(saved, changes):
    rewrite(saved, **changes)
    with pytest.raises(ArtifactError, match="train again"):
        load_checkpoint(saved, generation="g0002", codebook_hash=HASH)


def test_weights_of_another_shape_are_refused(saved):
    rewrite(saved, widths=[3, 4, 6])
    with pytest.raises(ArtifactError, match="does not hold this model"):
        load_checkpoint(saved, generation="g0002", codebook_hash=HASH)


def test_a_pickle_with_a_matching_hash_is_never_unpickled(saved):
    put_a_pickle(saved / "model.safetensors")
    rewrite(saved, weights_sha256=hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest())
    with pytest.raises(ArtifactError, match="does not hold this model"):
        load_checkpoint(saved, generation="g0002", codebook_hash=HASH)


def test_an_existing_checkpoint_is_never_overwritten(saved, model):
    before = (saved / "checkpoint.json").read_bytes()
    with pytest.raises(StorageError, match="delete the folder if it exists"):
        save(saved, model)
    assert (saved / "checkpoint.json").read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_widths_that_are_not_the_models_are_refused(tmp_path, model):
    with pytest.raises(ValueError, match="the model has widths"):
        save_checkpoint(
            tmp_path / "c", model, release_id="r", generation="g", codebook_hash=HASH, widths=(9, 9, 9), config=SAMPLE.tiny_config()
        )


def test_only_safetensors_and_json_are_written(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["checkpoint.json", "model.safetensors"]


def test_a_loaded_decoder_scores_exactly_as_the_saved_one_and_knows_its_items(tmp_path):
    sids = SAMPLE.semantic_ids()
    reader = SequenceReader(SAMPLE.cycle_sequences(sids), sids, widths=SAMPLE.WIDTHS, max_history=16)
    timelines = whole_histories(reader)
    config = SAMPLE.tiny_decoder(inputs=("codes", "fused", "item"))
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    torch.manual_seed(0)
    model = PackedDecoder(ItemFacts.of(reader.catalogue, timelines.train, vectors), config).eval()
    about = {"release_id": "r000007", "generation": "g0002", "codebook_hash": HASH, "widths": SAMPLE.WIDTHS, "config": config}
    save_checkpoint(tmp_path / "c", model, **about)
    assert read_checkpoint_info(tmp_path / "c").config == config
    loaded = load_checkpoint(tmp_path / "c", generation="g0002", codebook_hash=HASH)
    assert torch.equal(loaded.item_vectors(), model.item_vectors())
    users = timelines.test.take(slice(0, 5))
    saved, again = (DecoderRecommender(one, None).scores(users) for one in (model, loaded))
    assert np.array_equal(saved, again)
    truncate(tmp_path / "c" / "model.safetensors")
    with pytest.raises(ArtifactError, match="train again"):
        load_checkpoint(tmp_path / "c", generation="g0002", codebook_hash=HASH)
