"""Pictures: what can be read becomes a vector of its own, what cannot is rejected with a reason."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from sidlake.encoders.image.encoder import ImageEncoder, ImageEncoderConfig
from sidlake.encoders.image.features import FEATURE_DIM, picture_features
from sidlake.errors import EncoderError

EMOJI = Path(__file__).parent.parent / "data" / "emoji.parquet"


@pytest.fixture(scope="module")
def emoji():
    return pl.read_parquet(EMOJI).sort("item_id").gather_every(6)


@pytest.fixture(scope="module")
def encoder():
    return ImageEncoder.load(ImageEncoderConfig(batch_size=8))


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A picture model of a few thousand weights, made on the spot."""
    import torch
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(**size, image_size=32, patch_size=8)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def png(colour, size=(20, 20)):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def test_a_vector_depends_on_its_picture_alone(encoder, emoji):
    pictures = emoji["image"].to_list()[:20]
    together = encoder.encode(pictures).vectors_ND
    backwards = encoder.encode([None, *pictures[::-1]]).vectors_ND[:0:-1]
    assert np.array_equal(together, backwards)
    assert together.shape == (20, encoder.dim) == (20, FEATURE_DIM)


def test_pictures_of_a_category_look_alike_more_often_than_chance(encoder, emoji):
    found = encoder.encode(emoji["image"].to_list())
    assert found.present_N.all()
    unit = found.vectors_ND / np.linalg.norm(found.vectors_ND, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    category = np.array([path[0] for path in emoji["category"].to_list()])
    chance = np.mean([(category == own).mean() for own in category])
    assert (category[cosine.argmax(axis=1)] == category).mean() > 3 * chance


def test_colour_shape_and_texture_all_count():
    plain = picture_features(Image.new("RGB", (72, 72), "red"))
    other = picture_features(Image.new("RGB", (72, 72), "blue"))
    square = Image.new("RGB", (72, 72), "red")
    square.paste("darkred", (20, 20, 50, 50))
    assert np.linalg.norm(plain - other) > 0.5
    assert np.linalg.norm(plain - picture_features(square)) > 0.5


def test_an_unreadable_picture_is_rejected_and_the_others_are_not(encoder, emoji, tmp_path):
    good = emoji["image"][0]
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "good.png").write_bytes(good)
    (tmp_path / "outside.png").write_bytes(good)
    pictures = {
        "cut short": good[: len(good) // 2],
        "not a picture": b"GIF or so",
        "empty": b"",
        "no file": "nowhere.png",
        "leads out": "../outside.png",
        "URL": "https://example.org/x.png",
        "a path": "good.png",
        "bytes": good,
        "none": None,
    }
    found = encoder.encode(list(pictures.values()), root=tmp_path / "inside")
    names = list(pictures)
    reasons = {names[entry.index]: entry.reason for entry in found.rejected}
    assert [names[row] for row in np.flatnonzero(found.present_N)] == ["a path", "bytes"]
    assert set(reasons) == set(names) - {"a path", "bytes", "none"}
    assert reasons["not a picture"] == "not a picture of a known format"
    assert reasons["empty"] == "empty"
    assert "out of the recipe's folder" in reasons["leads out"]
    assert "allow_urls is off" in reasons["URL"]
    assert not found.vectors_ND[~found.present_N].any()


def test_a_picture_of_too_many_pixels_is_not_decoded():
    encoder = ImageEncoder.load(ImageEncoderConfig(max_pixels=100))
    found = encoder.encode([png("red", (20, 20)), png("red", (10, 10))])
    assert found.present_N.tolist() == [False, True]
    assert found.rejected[0].reason == "20 x 20 pixels, allowed 100"


def test_a_model_from_a_folder_embeds_as_it_does_outside(vit):
    from sentence_transformers import SentenceTransformer

    pictures = [png(colour) for colour in ("red", "green", "blue", "white", "black")]
    encoder = ImageEncoder.load(ImageEncoderConfig(model=str(vit), batch_size=3, device="cpu"))
    found = encoder.encode([*pictures, b"broken"])
    outside = SentenceTransformer(str(vit), device="cpu").encode([Image.open(io.BytesIO(data)) for data in pictures])
    assert np.allclose(found.vectors_ND[:5], outside, atol=1e-5)
    assert [entry.index for entry in found.rejected] == [5]
    again = encoder.encode(pictures[::-1]).vectors_ND[::-1]
    assert np.array_equal(again, found.vectors_ND[:5])


def test_the_encoders_id_names_model_and_weights(vit, tmp_path):
    import shutil

    from safetensors.numpy import load_file, save_file

    first = ImageEncoder.load(ImageEncoderConfig(model=str(vit), device="cpu")).encoder_id
    other = tmp_path / vit.name
    shutil.copytree(vit, other)
    weights = load_file(other / "model.safetensors")
    weights["embeddings.cls_token"] = weights["embeddings.cls_token"] + 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    second = ImageEncoder.load(ImageEncoderConfig(model=str(other), device="cpu")).encoder_id
    assert first != second
    assert first.split(":")[:2] == second.split(":")[:2] == ["image", vit.name]


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(EncoderError, match=r"no config\.json"):
        ImageEncoder.load(ImageEncoderConfig(model=str(tmp_path)))


@pytest.mark.parametrize("wrong", [{"model": ""}, {"batch_size": 0}, {"device": "tpu"}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="are needed"):
        ImageEncoderConfig(**wrong)
