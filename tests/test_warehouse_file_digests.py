"""Digests of files: noted once, when a release first names a file; a damaged file is found by its name, whatever was hit."""

from pathlib import Path

import pytest
import warehouse_sample as sample

from sidlake.errors import StorageError
from sidlake.warehouse.file_digests import check_files, note_files
from sidlake.warehouse.releases import publish, rollback
from sidlake.warehouse.tables import Warehouse


@pytest.fixture
def warehouse(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    publish(warehouse, sample.draft(sample.write(warehouse)), expected_parent=None)
    return warehouse


TABLES = {table: 0 for table in ("items", "interactions", "codebooks", "semantic_ids", "sid_quality", "user_sequences", "sid_trie")}


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_publishing_notes_every_file_once(warehouse):
    written = TABLES | {"sid_ledger": 0}
    files = [path for table, version in written.items() for path in warehouse.files(table, version=version)]
    noted = warehouse.read("file_digests").to_pylist()
    assert {str(Path(warehouse.table_url(row["table_name"]), row["file"])) for row in noted} == set(files)
    assert len(noted) == len(files) == check_files(warehouse, written)
    assert note_files(warehouse, written, run_id="run") == 0


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 0.999])
@pytest.mark.parametrize("table", ["items", "interactions"])
def test_one_flipped_bit_anywhere_in_a_file_is_found_and_the_file_is_named(warehouse, table, share):
    path = Path(warehouse.files(table)[-1])
    flip(path, int(share * path.stat().st_size))
    with pytest.raises(StorageError, match="1 of 10 files are not as they were published") as damaged:
        check_files(warehouse, TABLES)
    assert damaged.value.details["paths"] == [str(path)]
    with pytest.raises(StorageError, match=path.name):
        rollback(warehouse, "r000001", "back")


def test_files_of_a_release_from_before_digests_are_left_to_the_content_hash(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    assert check_files(warehouse, sample.write(warehouse)) == 0
