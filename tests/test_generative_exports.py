"""What other projects read, read back by them or by the rules that they publish."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from sidlake.errors import ContractError, NotFoundError
from sidlake.generative.exports.catalogue_codes import CatalogueCodes
from sidlake.generative.exports.release_files import KINDS, export_release
from sidlake.generative.exports.static_index import static_index
from sidlake.warehouse.releases import get
from sidlake.warehouse.tables import Warehouse

STORED = Path(__file__).with_name("data") / "release-0.1"


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Return a warehouse of two stored releases of a small catalogue with interactions."""
    folder = tmp_path_factory.mktemp("exports") / "lake"
    shutil.copytree(STORED, folder)
    return Warehouse(folder)


@pytest.fixture(scope="module")
def published(lake):
    """Return the codes of the current release by item."""
    sids = lake.read("semantic_ids", version=get(lake).tables["semantic_ids"]).to_pylist()
    return {row["item_id"]: row for row in sids}


@pytest.fixture
def exported(lake, tmp_path):
    """Return a function that exports the current release and returns the folder."""

    def export(kind, **options):
        name, files = export_release(lake, kind, tmp_path / kind, **options)
        assert name == "r000002"
        assert sorted(path for path in (tmp_path / kind).rglob("*") if path.is_file()) == files
        return tmp_path / kind

    return export


def spelled_by(index: dict[str, np.ndarray], dense_levels: int) -> set[tuple[int, ...]]:
    """Return every SID that STATIC's decoders would let pass, by the rules of decoding_pt.py in its repository."""
    vocabulary = len(index["start_mask"])
    prefixes = product(range(vocabulary), repeat=dense_levels)
    passing = [prefix for prefix in prefixes if index["start_mask"][prefix[0]] and index["dense_mask"][prefix]]
    beams = [(prefix, int(index["dense_states"][prefix])) for prefix in passing]
    for level in range(dense_levels, len(index["layer_max_branches"])):
        following = []
        for prefix, state in beams:
            start, end = index["indptr"][state], index["indptr"][state + 1]
            assert 1 <= end - start <= index["layer_max_branches"][level]
            following += [((*prefix, int(code)), int(after)) for code, after in index["packed_csr"][start:end]]
        beams = following
    assert all(state == 0 for _, state in beams)
    return {prefix for prefix, _ in beams}


@pytest.mark.parametrize("dense_levels", [1, 2])
def test_static_lets_the_published_sids_pass_and_no_others(exported, published, dense_levels):
    folder = exported("static", dense_levels=dense_levels)
    with np.load(folder / "static_index.npz", allow_pickle=False) as file:
        index = dict(file)
    assert {name: array.dtype.name for name, array in index.items()} == {
        "packed_csr": "int32", "indptr": "int32", "layer_max_branches": "int32", "start_mask": "bool", "dense_mask": "bool",
        "dense_states": "int32",
    }  # fmt: skip
    assert spelled_by(index, dense_levels) == {tuple(row["codes"]) for row in published.values()}
    items = pq.read_table(folder / "items.parquet").to_pylist()
    assert {row["item_id"]: row["codes"] for row in items} == {item: row["codes"] for item, row in published.items()}


def test_the_edge_out_of_a_level_0_code_is_found_at_its_number_plus_one():
    codes = CatalogueCodes(["p", "q", "r"], np.array([[0, 1, 2], [0, 1, 3], [2, 0, 0]], dtype=np.int32), (3, 2, 4))
    index = static_index(codes)
    assert index.start_mask.tolist() == [True, False, True, False]
    assert index.layer_max_branches.tolist() == [2, 1, 2]
    assert index.packed_csr.tolist() == [[1, 5], [0, 6], [2, 0], [3, 0], [0, 0], *[[4, 0]] * 4]
    assert index.indptr.tolist() == [0, 0, 1, 1, 2, 2, 4, 5, 9]
    assert (index.dense_states[0, 1], index.dense_states[2, 0], index.dense_mask.sum()) == (5, 6, 2)


def test_grid_reads_a_column_of_codes_per_item_number(exported, published, tmp_path):
    folder = exported("grid")
    torch.save(load_file(folder / "item_sids.safetensors")["codes"], tmp_path / "item-sid-mapping.pt")  # as the docs say
    codes = torch.load(tmp_path / "item-sid-mapping.pt", weights_only=True)
    items = pq.read_table(folder / "items.parquet").to_pylist()
    assert (codes.dtype, tuple(codes.shape)) == (torch.int64, (3, len(published)))
    assert [row["item"] for row in items] == list(range(len(published)))
    assert {row["item_id"]: codes[:, row["item"]].tolist() for row in items} == {
        item: row["codes"] for item, row in published.items()
    }


def test_an_index_json_joins_to_the_published_sids(exported, published):
    index = json.loads((exported("index-json") / "sidlake.index.json").read_text(encoding="utf-8"))
    assert {item: "".join(tokens) for item, tokens in index.items()} == {item: row["sid"] for item, row in published.items()}
    assert {len(tokens) for tokens in index.values()} == {3}


def test_a_numbered_index_json_comes_with_the_ids_of_its_numbers(exported, published):
    folder = exported("index-json", numbered=True)
    index = json.loads((folder / "sidlake.index.json").read_text(encoding="utf-8"))
    ids = dict(line.split("\t") for line in (folder / "sidlake.item2id").read_text(encoding="utf-8").splitlines())
    assert {int(number) for number in index} == set(range(len(published)))
    assert all("".join(index[number]) == published[item]["sid"] for item, number in ids.items())


def test_a_hugging_face_tokenizer_turns_sids_into_the_numbers_of_their_codes(lake, exported, published):
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    folder = exported("hf-tokens")
    widths = np.bincount(lake.read("codebooks", version=get(lake).tables["codebooks"])["level"].to_numpy())
    starts = 3 + np.concatenate([[0], np.cumsum(widths)[:-1]])
    plain, pretrained = Tokenizer.from_file(str(folder / "tokenizer.json")), AutoTokenizer.from_pretrained(folder)
    for row in published.values():
        expected = (starts + np.array(row["codes"])).tolist()
        assert plain.encode(row["sid"] * 2).ids == expected * 2
        assert pretrained(row["sid"])["input_ids"] == expected
        assert pretrained.decode(expected).replace(" ", "") == row["sid"]
    assert pretrained("<a_99999>")["input_ids"] == [pretrained.unk_token_id]
    added = json.loads((folder / "sid_tokens.json").read_text(encoding="utf-8"))
    assert added == [token for token, _ in sorted(pretrained.get_vocab().items(), key=lambda pair: pair[1])][3:]


def test_the_added_tokens_make_a_language_models_tokenizer_read_sids(exported, published):
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##a": 2}, unk_token="[UNK]"))
    added = json.loads((exported("hf-tokens") / "sid_tokens.json").read_text(encoding="utf-8"))
    assert tokenizer.add_tokens(added) == len(added)
    row = next(iter(published.values()))
    assert "".join(tokenizer.encode(row["sid"]).tokens) == row["sid"]


def test_datasets_loads_items_and_histories(lake, exported, published, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    folder = exported("hf-dataset")
    items = load_dataset(str(folder), "items", cache_dir=str(tmp_path / "cache"))["train"]
    assert {row["item_id"]: (row["sid"], row["codes"]) for row in items} == {
        item: (row["sid"], row["codes"]) for item, row in published.items()
    }
    histories = load_dataset(str(folder), "sequences", cache_dir=str(tmp_path / "cache"))
    rows = lake.read("user_sequences", version=get(lake).tables["user_sequences"]).to_pylist()
    for ours, theirs in (("train", "train"), ("valid", "validation"), ("test", "test")):
        expected = {row["user_id"]: (row["item_ids"], row["codes"], row["target"]) for row in rows if row["split"] == ours}
        found = {row["user_id"]: (row["item_ids"], row["codes"], row["target"]) for row in histories[theirs]}
        assert found == expected
        assert found


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_release_gives_the_same_bytes(lake, tmp_path, kind):
    for name in ("one", "two"):
        export_release(lake, kind, tmp_path / name)
    for path in (path for path in (tmp_path / "one").rglob("*") if path.is_file() and path.suffix != ".npz"):  # zips hold the time
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_a_folder_that_is_there_is_left_as_it_is(lake, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ContractError, match="do not overwrite"):
        export_release(lake, "grid", tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_what_is_refused_leaves_nothing_behind(lake, tmp_path):
    with pytest.raises(ContractError, match="1 to 2 dense levels"):
        export_release(lake, "static", tmp_path / "out", dense_levels=3)
    with pytest.raises(NotFoundError, match="no release 'r9'"):
        export_release(lake, "static", tmp_path / "out", release="r9")
    assert list(tmp_path.iterdir()) == []
