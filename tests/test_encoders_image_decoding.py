"""A picture is what a person sees, however a file holds it."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from sidlake.encoders.image.decoding import as_seen, on_white
from sidlake.encoders.image.encoder import ImageEncoder, ImageEncoderConfig

ENCODER = ImageEncoder.load(ImageEncoderConfig())


def scene():
    """Return a picture whose sides and corners differ."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:16, :, 0], pixels[:, :20, 1], pixels[30:, 40:, 2] = 220, 180, 250
    return Image.fromarray(pixels)


def saved(picture, form="PNG", **settings):
    data = io.BytesIO()
    picture.save(data, form, **settings)
    return data.getvalue()


def vector(data):
    found = ENCODER.encode([data])
    assert found.present_N.all(), found.rejected
    return found.vectors_ND[0]


def near(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize(("orientation", "turn"), [(3, 180), (6, 90), (8, 270)])
def test_a_picture_that_the_camera_notes_as_turned_is_seen_upright(orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = scene().rotate(turn, expand=True)
    assert np.array_equal(vector(saved(lying, exif=exif)), vector(saved(scene())))
    assert near(vector(saved(lying)), vector(saved(scene()))) < 0.99


def test_sixteen_bits_of_grey_are_seen_as_eight():
    grey = np.asarray(scene().convert("L"))
    deep = saved(Image.fromarray(grey.astype(np.uint16) * 257))
    assert np.allclose(vector(deep), vector(saved(Image.fromarray(grey))), atol=1e-6)


@pytest.mark.parametrize("values", [np.linspace(0, 1, 64), np.linspace(0, 70000, 64), np.full(64, np.nan)])
def test_floats_are_seen_by_their_range(values):
    seen = as_seen(Image.fromarray(np.tile(values.astype(np.float32), (64, 1)), "F"))
    assert seen.mode == "L"
    assert np.asarray(seen).max() == (0 if np.isnan(values).all() else 255)


def test_cmyk_looks_like_rgb():
    assert near(vector(saved(scene().convert("CMYK"), "TIFF")), vector(saved(scene()))) > 0.99


def test_a_wide_colour_space_is_brought_into_srgb():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    in_lab = ImageCms.profileToProfile(scene(), srgb, lab, outputMode="LAB")
    seen = as_seen(Image.open(io.BytesIO(saved(in_lab, "TIFF", icc_profile=lab.tobytes()))))
    assert np.abs(np.asarray(seen, int) - np.asarray(scene(), int)).mean() < 6


def test_a_broken_colour_profile_is_left_out():
    assert np.array_equal(vector(saved(scene(), icc_profile=b"not a profile")), vector(saved(scene())))


def test_what_is_transparent_is_white_for_a_model_and_the_first_frame_is_seen():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert np.asarray(on_white(clear)).min() == 255
    frames = saved(scene(), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 48), "white")])
    assert near(vector(frames), vector(saved(scene()))) > 0.99


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F", "HSV", "LAB", "PA"])
def test_every_mode_becomes_one_that_is_understood(mode):
    picture = Image.new(mode, (8, 8))
    picture.load()
    assert as_seen(picture).mode in ("L", "LA", "RGB", "RGBA")
    assert on_white(as_seen(picture)).mode == "RGB"
