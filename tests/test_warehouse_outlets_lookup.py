"""Looking up one item, one SID, one prefix: from a file that follows the release and is nobody's only copy."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys

import pyarrow as pa
import pytest
import warehouse_sample as sample
from hypothesis import given
from hypothesis import strategies as st

from sidlake.errors import NotFoundError, StorageError
from sidlake.tokenizers.item_ids import normal_id, normal_ids
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.keep.pins import pin
from sidlake.warehouse.outlets.lookup import Found, open_lookup
from sidlake.warehouse.outlets.lookup_file import LINK, lookup_file, refresh_lookup, write_lookup
from sidlake.warehouse.releases import current, get, publish, rollback
from sidlake.warehouse.tables import Warehouse


def published(warehouse, count=12, **changes):
    """Publish `count` items, their lookup file too, and return the release."""
    latest = current(warehouse)
    tables = sample.write(warehouse, count, **changes) | changes.pop("tables", {})
    draft = sample.draft(tables, generation=changes.get("generation", "g1"))
    release = publish(warehouse, draft, expected_parent=latest.release_id if latest else None)
    write_lookup(warehouse)
    return release


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Twelve items, released, in a folder whose name means something in SQL, in a URL and to a shell. Tests only read it."""
    warehouse = Warehouse.create_or_open(tmp_path_factory.mktemp("lake") / "it's a #lake 100 50")
    published(warehouse)
    return warehouse


@pytest.fixture
def warehouse(lake, tmp_path):
    """A copy of `lake`, for tests that change it."""
    shutil.copytree(lake.root, tmp_path / lake.root.name, symlinks=True)
    return Warehouse(tmp_path / lake.root.name)


def spelled(codes):
    return "".join(f"<{chr(97 + level)}_{code}>" for level, code in enumerate(codes))


EXPECTED = {name: spelled(codes) for name, codes in zip(sample.item_ids(12), sample.codes_of(12), strict=True)}


def test_every_item_leads_to_its_sid_and_back(lake):
    with open_lookup(lake) as lookup:
        assert {name: lookup.item(name) for name in EXPECTED} == {name: Found(name, sid) for name, sid in EXPECTED.items()}
        assert {sid: lookup.sid(sid).item_id for sid in EXPECTED.values()} == {sid: name for name, sid in EXPECTED.items()}
        assert lookup.num_items == 12
        assert lookup.release.release_id == "r000001"


@pytest.mark.parametrize(
    "prefix", ["", "<a_0>", "<a_0><b_1>", "<a_0><b_1><c_2>", "<a_2>", "<a_2147483647>", "<a_0><b_1><c_2><d_0>"]
)
def test_a_prefix_leads_to_the_items_below_it_in_the_order_of_their_codes(lake, prefix):
    with open_lookup(lake) as lookup:
        assert [found.sid for found in lookup.under(prefix)] == [sid for sid in EXPECTED.values() if sid.startswith(prefix)]


def test_codes_are_ordered_as_numbers_and_not_as_text(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    codes, widths = [[0, 0, code] for code in (10, 9, 2, 100, 1)], (1, 1, 101)
    names = sample.item_ids(len(codes))
    tables = sample.write(warehouse, len(codes))
    tables["codebooks"] = warehouse.overwrite("codebooks", sample.codebooks(widths=widths), run_id="run")
    tables["semantic_ids"] = warehouse.overwrite("semantic_ids", sample.semantic_ids(names, codes, widths=widths), run_id="run")
    tables["sid_trie"] = warehouse.overwrite("sid_trie", sample.trie(names, codes), run_id="run")
    tables["user_sequences"] = warehouse.overwrite("user_sequences", sample.sequences(names, codes), run_id="run")
    publish(warehouse, sample.draft(tables), expected_parent=None)
    with open_lookup(warehouse) as lookup:
        assert [found.sid for found in lookup.under("<a_0><b_0>")] == [spelled([0, 0, code]) for code in (1, 2, 9, 10, 100)]


def test_pages_of_a_prefix_make_the_whole_and_overlap_nowhere(lake):
    with open_lookup(lake) as lookup:
        pages, after = [], None
        while page := lookup.under("<a_0>", limit=5, after=after):
            pages.append([found.sid for found in page])
            after = page[-1].sid
        assert [len(page) for page in pages] == [5, 5, 2]
        assert [sid for page in pages for sid in page] == list(EXPECTED.values())


@pytest.mark.parametrize("item", ["", "nobody", "x" * 100_000, "a/b", "\x00", "\ud800", "'; DROP TABLE items; --", "é" * 9])
def test_an_item_that_is_not_there_is_none_whatever_it_is_called(lake, item):
    with open_lookup(lake) as lookup:
        assert lookup.item(item) is None


def test_an_item_is_found_in_any_spelling_that_sources_may_have(lake):
    with open_lookup(lake) as lookup:
        assert lookup.item("\ufeff  item '003\" ") == lookup.item("item '003\"") != None  # noqa: E711
        assert lookup.item("ITEM '003\"") is None  # the recipe does not say that letter case is one


@pytest.mark.parametrize("sid", ["", "a_1", "<b_0>", "<a_01>", "<a_1><a_2>", "<a_-1>", "<a_1>\n"])
def test_what_is_no_sid_is_refused_by_name(lake, sid):
    with open_lookup(lake) as lookup, pytest.raises(ValueError, match="is not a semantic ID"):
        lookup.sid(sid)


def test_a_code_beyond_all_numbers_is_nobodys(lake):
    with open_lookup(lake) as lookup:
        assert lookup.sid("<a_99999999999999999999><b_0><c_0>") is None
        assert lookup.under("<a_99999999999999999999>") == []


def test_an_item_that_has_left_is_found_with_the_time_and_is_below_no_prefix(warehouse):
    names, codes = sample.item_ids(12), sample.codes_of(12)
    tables = sample.write(warehouse, 11)
    left = sample.semantic_ids(names[11:], codes[11:]).select(
        [name for name in CONTRACTS["retired_sids"].names if name != "retired_at"]
    )
    left = left.append_column("retired_at", pa.array([sample.NOW], pa.timestamp("us", tz="UTC")))
    tables["retired_sids"] = warehouse.overwrite("retired_sids", left, run_id="run")
    publish(warehouse, sample.draft(tables), expected_parent="r000001")
    gone = Found(names[11], spelled(codes[11]), "2026-01-02T03:04:05.000000Z")
    with open_lookup(warehouse) as lookup:
        assert lookup.item(names[11]) == lookup.sid(spelled(codes[11])) == gone
        assert gone.sid not in {found.sid for found in lookup.under("")}
        assert lookup.num_items == len(lookup.under("")) == 11


def test_a_reader_keeps_its_release_while_others_publish_and_roll_back(warehouse):
    with open_lookup(warehouse) as reader:
        published(warehouse, 15, skip=1, generation="g2")
        assert {name: reader.item(name).sid for name in EXPECTED} == EXPECTED
        with open_lookup(warehouse) as newer:
            assert (newer.num_items, newer.release.release_id) == (15, "r000002")
        rollback(warehouse, "r000001", "test")
        write_lookup(warehouse)
        with open_lookup(warehouse) as back:
            assert ({name: back.item(name).sid for name in EXPECTED}, back.release.release_id) == (EXPECTED, "r000003")
        assert reader.release.release_id == "r000001"


def test_the_link_leads_any_client_to_the_current_release(warehouse):
    published(warehouse, 15)
    code = (
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT release_id, num_items FROM release').fetchall())"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, str(warehouse.root / LINK)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[('r000002', 15)]"


def test_files_of_releases_that_are_neither_current_nor_pinned_go(warehouse):
    pin(warehouse, "prod", "r000001")
    published(warehouse, 13)
    published(warehouse, 14)
    assert sorted(path.name[:7] for path in (warehouse.root / "lookup").iterdir()) == ["r000001", "r000003"]
    with open_lookup(warehouse, "prod") as lookup:
        assert lookup.num_items == 12
    with open_lookup(warehouse, "r000002") as lookup:
        assert lookup.num_items == 13


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped", "other"])
def test_a_missing_or_damaged_file_is_made_anew_with_the_same_answers(warehouse, damage):
    path = lookup_file(warehouse, get(warehouse))
    whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = {
        "empty": b"",
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "other": b"not a database " * 999,
    }
    path.unlink() if damage == "gone" else path.write_bytes(damaged[damage])
    with open_lookup(warehouse) as lookup:
        assert {name: lookup.item(name).sid for name in EXPECTED} == EXPECTED
    assert lookup_file(warehouse, get(warehouse)).read_bytes() == whole


def test_a_file_that_is_damaged_while_it_is_open_is_made_anew(warehouse):
    with open_lookup(warehouse) as lookup:
        path = lookup_file(warehouse, get(warehouse))
        path.write_bytes(b"\xff" * path.stat().st_size)
        assert lookup.item("item '003\"").sid == EXPECTED["item '003\""]
        assert {name: lookup.item(name).sid for name in EXPECTED} == EXPECTED


def test_a_folder_that_cannot_be_written_stops_neither_the_release_nor_a_reader(warehouse):
    for path in (warehouse.root / "lookup").iterdir():
        path.unlink()
    (warehouse.root / "lookup").rmdir()
    (warehouse.root / "lookup").write_text("in the way")  # permissions do not stop root, a file of this name does
    with pytest.raises(StorageError, match="lookup"):
        write_lookup(warehouse)
    assert "Whoever looks up next makes it" in refresh_lookup(warehouse)
    with open_lookup(warehouse) as lookup:
        assert {name: lookup.item(name).sid for name in EXPECTED} == EXPECTED


def test_no_lookup_of_a_release_that_is_not_there(lake, tmp_path):
    with pytest.raises(NotFoundError, match="r000009"):
        open_lookup(lake, "r000009")
    with pytest.raises(NotFoundError, match="run the pipeline first"):
        open_lookup(Warehouse.create_or_open(tmp_path / "empty"))


def test_a_closed_lookup_says_so(lake):
    lookup = open_lookup(lake)
    lookup.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        lookup.item("item '003\"")


def test_a_run_leaves_the_file_and_its_rerun_brings_back_a_lost_one(shop_copy):
    lake = Warehouse(shop_copy.warehouse)
    with open_lookup(lake) as lookup:
        rows = lake.read("semantic_ids", version=get(lake).tables["semantic_ids"]).to_pylist()
        assert {row["item_id"]: row["sid"] for row in rows} == {row["item_id"]: lookup.item(row["item_id"]).sid for row in rows}
    (file,) = (lake.root / "lookup").glob("r000001-*.sqlite")
    file.unlink()
    shop_copy.run("refresh")
    assert file.is_file()
    assert (lake.root / LINK).resolve() == file.resolve()


@given(st.text(max_size=12).filter(lambda text: not any(0xD800 <= ord(letter) < 0xE000 for letter in text)), st.booleans())
def test_one_identifier_is_spelled_as_a_column_of_them_is(text, uppercase):
    for item_id in (text, f" {text}\t", "".join(letter for letter in text if letter < "\x80")):
        assert normal_id(item_id, uppercase=uppercase) == normal_ids([item_id], uppercase=uppercase)[0]
