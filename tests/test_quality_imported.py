"""Semantic IDs from other people's files: every format read exactly, every broken file refused by name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sidlake.errors import ContractError, GateFailed, SourceError
from sidlake.quality.gates import Gate
from sidlake.quality.imported import (
    FORMATS,
    assignment_of_table,
    read_assignment,
    require_known_ids,
    require_sound,
    write_assignment,
)

CODES = [[12, 3, 0], [0, 255, 7], [12, 3, 1], [4, 4, 4]]
IDS = ["0", "1", "2", "3"]


def as_json(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def index_json(path, codes=CODES):
    letters = "abcd"
    return as_json(path, {str(item): [f"<{letters[i]}_{code}>" for i, code in enumerate(row)] for item, row in enumerate(codes)})


def grid(path, codes=CODES):
    torch.save(torch.tensor(codes).T, path)
    return path


def openonerec(path, codes=CODES):
    sids = ["<|sid_begin|>" + "".join(f"<s_{'abcd'[i]}_{code}>" for i, code in enumerate(row)) + "<|sid_end|>" for row in codes]
    return as_json(path, {str(item): sid for item, sid in enumerate(sids)})


def npy(path, codes=CODES):
    with path.open("wb") as stream:
        np.save(stream, np.array(codes, dtype=np.int16))
    return path


def parquet(path, codes=CODES):
    pq.write_table(pa.table({"item_id": list(range(len(codes))), "codes": pa.array(codes, pa.list_(pa.int16()))}), path)
    return path


WRITERS = {"index_json": index_json, "grid": grid, "openonerec": openonerec, "npy": npy, "parquet": parquet}


def test_every_format_has_its_case_here():
    assert set(WRITERS) == set(FORMATS)


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_same_codes_come_out_of_every_format(tmp_path, file_format):
    found = read_assignment(WRITERS[file_format](tmp_path / "sids"), file_format, name="theirs", source="a paper")
    assert found.item_ids.to_pylist() == IDS
    assert found.codes_NL.tolist() == CODES
    assert (found.widths, found.name, found.source, found.stripped) == ((13, 256, 8), "theirs", "a paper", ())


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_cut_short_is_refused_whatever_its_format(tmp_path, file_format):
    path = WRITERS[file_format](tmp_path / "sids")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match="cut short"):
        read_assignment(path, file_format, name="theirs")


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_empty_file_is_refused_whatever_its_format(tmp_path, file_format):
    (tmp_path / "sids").write_bytes(b"")
    with pytest.raises(SourceError, match="no readable"):
        read_assignment(tmp_path / "sids", file_format, name="theirs")


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_missing_file_is_named(tmp_path, file_format):
    with pytest.raises(SourceError, match=r"there is no file .*nothing"):
        read_assignment(tmp_path / "nothing", file_format, name="theirs")


@pytest.mark.parametrize("file_format", ["grid", "npy", "parquet", "openonerec"])
def test_a_negative_code_is_refused(tmp_path, file_format):
    codes = [[1, 2, 3], [1, -1, 3], [0, 0, 0], [1, 1, 1]]
    path = (
        as_json(tmp_path / "sids", dict(enumerate(codes)))
        if file_format == "openonerec"
        else WRITERS[file_format](tmp_path / "sids", codes)
    )
    with pytest.raises(ContractError, match=r"codes range over \[-1, 3\]; allowed is \[0, 2\*\*31 - 1\)"):
        read_assignment(path, file_format, name="theirs")


@pytest.mark.parametrize("file_format", ["index_json", "openonerec", "parquet"])
def test_ragged_sids_are_refused_unless_the_first_levels_are_asked_for(tmp_path, file_format):
    path = WRITERS[file_format](tmp_path / "sids", [[1, 2, 0], [1, 2], [3, 4]])
    with pytest.raises(ContractError, match=r"SIDs have 2 to 3 codes, needed are as many for every item; .*num_levels"):
        read_assignment(path, file_format, name="theirs")
    with pytest.raises(ContractError, match="needed are at least 3"):
        read_assignment(path, file_format, name="theirs", num_levels=3)
    found = read_assignment(path, file_format, name="theirs", num_levels=2)
    assert found.codes_NL.tolist() == [[1, 2], [1, 2], [3, 4]]
    assert found.stripped == ("codes from level 2 on, of up to 3: asked for the first 2",)


def test_nothing_in_a_torch_file_is_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was_run",)

    torch.save(Payload(), tmp_path / "sids.pt")
    with pytest.raises(SourceError, match="no readable torch file of tensors alone"):
        read_assignment(tmp_path / "sids.pt", "grid", name="theirs")
    assert not (tmp_path / "was_run").exists()
    with pytest.raises(FileNotFoundError):
        (tmp_path / "was_run").stat()


def test_pickled_objects_in_npy_are_refused(tmp_path):
    np.save(tmp_path / "sids.npy", np.array([[1, 2], [3]], dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match="pickled objects"):
        read_assignment(tmp_path / "sids.npy", "npy", name="theirs")


def test_a_torch_file_of_something_else_says_what_it_holds(tmp_path):
    torch.save({"sids": torch.zeros(3, 4)}, tmp_path / "dict.pt")
    with pytest.raises(SourceError, match="holds a dict; one tensor"):
        read_assignment(tmp_path / "dict.pt", "grid", name="theirs")
    torch.save(torch.zeros(3, 4, dtype=torch.bfloat16), tmp_path / "vectors.pt")
    with pytest.raises(ContractError, match=r"tensor of torch.bfloat16; codes are integers"):
        read_assignment(tmp_path / "vectors.pt", "grid", name="theirs")


@pytest.mark.parametrize("shape", [(4, 3), (3, 4)])
def test_matrices_are_read_items_first_whichever_side_they_are_on(tmp_path, shape):
    matrix = np.array(CODES, dtype=np.int64)
    np.save(tmp_path / "sids.npy", matrix if shape == (4, 3) else matrix.T)
    assert read_assignment(tmp_path / "sids.npy", "npy", name="theirs").codes_NL.tolist() == CODES


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        (np.zeros((3, 3), np.int64), "which are the items cannot be told"),
        (np.zeros((4, 3), np.float32), "holds float32 of shape"),
        (np.zeros(5, np.int64), "a matrix of integers is needed"),
        (np.full((4, 3), 2**40), r"codes range over \[1099511627776, 1099511627776\]"),
        (np.empty((4, 0), np.int64), "SIDs have 0 to 0 codes"),
    ],
)
def test_matrices_that_are_no_codes_are_refused(tmp_path, matrix, says):
    np.save(tmp_path / "sids.npy", matrix)
    with pytest.raises(ContractError, match=says):
        read_assignment(tmp_path / "sids.npy", "npy", name="theirs")


def test_rows_take_identifiers_from_a_file(tmp_path):
    (tmp_path / "ids.txt").write_text("B001\nB002\nB003\nB004\n", encoding="utf-8")
    found = read_assignment(npy(tmp_path / "sids"), "npy", name="theirs", ids_path=tmp_path / "ids.txt")
    assert found.item_ids.to_pylist() == ["B001", "B002", "B003", "B004"]
    (tmp_path / "ids.txt").write_text("B001\nB002\n", encoding="utf-8")
    with pytest.raises(ContractError, match=r"has 2 identifiers, .* has 4 items"):
        read_assignment(tmp_path / "sids", "npy", name="theirs", ids_path=tmp_path / "ids.txt")
    with pytest.raises(SourceError, match="no readable text file of identifiers"):
        read_assignment(tmp_path / "sids", "npy", name="theirs", ids_path=tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ('{"0": ["<a_1>", "<b_2>"], "0": ["<a_1>", "<b_3>"]}', ContractError, "'0' is there more than once"),
        ('{"0": ["<b_1>", "<a_2>"]}', ContractError, r"tokens of levels a, b, c, \.\.\. in order"),
        ('{"0": ["<a_1>", "b_2"]}', ContractError, "tokens of levels"),
        ('{"0": ["<a_-1>", "<b_2>"]}', ContractError, "tokens of levels"),
        ('{"0": []}', ContractError, "tokens of levels"),
        ('{"0": "<a_1><b_2>"}', ContractError, "a list of tokens such as"),
        ('{"0": [1, 2]}', ContractError, "a list of tokens such as"),
        ('[["<a_1>", "<b_2>"]]', SourceError, "holds a JSON list"),
        ("{}", ContractError, "has no items"),
        ("\x80", SourceError, "no readable JSON"),
    ],
)
def test_broken_index_files_are_refused_by_name(tmp_path, text, kind, says):
    (tmp_path / "sids").write_bytes(text.encode("latin-1"))
    with pytest.raises(kind, match=says):
        read_assignment(tmp_path / "sids", "index_json", name="theirs")


def test_openonerec_items_may_be_objects_or_lists(tmp_path):
    sid = "<|sid_begin|><s_a_12><s_b_3><|sid_end|>"
    path = as_json(tmp_path / "sids", {"x": {"title": "a mop", "sid": sid}, "y": [4, 5], "z": "<s_a_6><s_b_7>"})
    assert read_assignment(path, "openonerec", name="theirs").codes_NL.tolist() == [[12, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("value", [{"title": "a mop"}, [1.5, 2], [True, False], None, 7])
def test_openonerec_items_without_a_sid_are_named(tmp_path, value):
    with pytest.raises(ContractError, match="item 'x' has"):
        read_assignment(as_json(tmp_path / "sids", {"x": value}), "openonerec", name="theirs")


def test_a_code_of_more_than_64_bits_is_refused(tmp_path):
    with pytest.raises(ContractError, match="a code exceeds 64 bits"):
        read_assignment(as_json(tmp_path / "sids", {"x": [2**70, 1]}), "openonerec", name="theirs")


@pytest.mark.parametrize(
    ("columns", "kind", "says"),
    [
        ({"item": ["x"], "codes": [[1, 2]]}, SourceError, "needs a column item_id"),
        ({"item_id": ["x"], "code": [[1, 2]]}, SourceError, "it has item_id, code"),
        ({"item_id": ["x"], "codes": [1]}, SourceError, "column codes is int64"),
        ({"item_id": ["x"], "codes": [[0.5, 2.0]]}, SourceError, "column codes is list"),
        ({"item_id": ["x", "y"], "codes": [[1, 2], None]}, ContractError, "1 items have no codes"),
        ({"item_id": ["x", "y"], "codes": [[1, 2], [3, None]]}, ContractError, "1 codes are null"),
        ({"item_id": ["x", "x"], "codes": [[1, 2], [3, 4]]}, ContractError, r"1 items have more than one SID \(such as 'x'\)"),
        ({"item_id": ["x", None], "codes": [[1, 2], [3, 4]]}, ContractError, "1 items have no identifier"),
    ],
)
def test_broken_tables_are_refused_by_name(tmp_path, columns, kind, says):
    pq.write_table(pa.table(columns), tmp_path / "sids")
    with pytest.raises(kind, match=says):
        read_assignment(tmp_path / "sids", "parquet", name="theirs")


def test_a_table_of_pids_and_text_is_read(tmp_path):
    table = pa.table({"pid": [7, 9], "sid": ["<|sid_begin|><s_a_1><s_b_2><|sid_end|>", "<a_3><b_4>"]})
    found = assignment_of_table(table, name="theirs", widths=(8, 8))
    assert (found.item_ids.to_pylist(), found.codes_NL.tolist(), found.widths) == (["7", "9"], [[1, 2], [3, 4]], (8, 8))


def test_widths_are_those_given_and_must_hold_the_codes(tmp_path):
    path = npy(tmp_path / "sids")
    assert read_assignment(path, "npy", name="theirs", widths=[256, 256, 256]).widths == (256, 256, 256)
    with pytest.raises(ContractError, match=r"code 255 at level 1, allowed is \[0, 16\)"):
        read_assignment(path, "npy", name="theirs", widths=[16, 16, 16])
    with pytest.raises(ContractError, match="2 widths for 3 levels"):
        read_assignment(path, "npy", name="theirs", widths=[256, 256])


def test_what_is_written_is_read_back_whole(tmp_path):
    first = read_assignment(
        index_json(tmp_path / "sids"), "index_json", name="theirs", source="a paper", widths=(256, 256, 8), num_levels=None
    )
    write_assignment(first.first_levels(2, why="a digit"), tmp_path / "kept/theirs.parquet")
    again = read_assignment(tmp_path / "kept/theirs.parquet", "parquet", name="again")
    assert again.codes_NL.tolist() == [row[:2] for row in CODES]
    assert (again.item_ids.to_pylist(), again.widths, again.source) == (IDS, (256, 256), "a paper")
    assert again.stripped == ("the last 1 of 3 levels: a digit",)
    table = pq.read_table(tmp_path / "kept/theirs.parquet")
    assert table.schema.remove_metadata() == pa.schema({"item_id": pa.string(), "codes": pa.list_(pa.int32())})


def test_the_order_of_rows_does_not_change_the_file(tmp_path):
    table = pa.table({"item_id": ["b", "a", "c"], "codes": [[1], [2], [3]]})
    for name, rows in (("one", [0, 1, 2]), ("two", [2, 0, 1])):
        write_assignment(assignment_of_table(table.take(rows), name="theirs"), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_unknown_format_lists_those_there_are(tmp_path):
    with pytest.raises(ValueError, match="unknown format 'csv'; the formats are index_json, grid"):
        read_assignment(npy(tmp_path / "sids"), "csv", name="theirs")


def sidlake(*arguments):
    code = "import sys; sys.argv[0] = 'sidlake'; from sidlake.cli.app import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_import_writes_an_assignment_and_says_what_is_in_it(tmp_path):
    path = index_json(tmp_path / "Beauty.index.json", [[1, 2, 0], [1, 2, 1], [3, 4, 0]])
    done = sidlake("import", path, "--format", "index_json", "--name", "letter", "-w", tmp_path / "lake", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == {
        "name": "letter",
        "path": str(tmp_path / "lake/assignments/letter.parquet"),
        "items": 3,
        "different_sids": 3,
        "widths": [4, 5, 2],
        "source": "Beauty.index.json",
        "stripped": [],
        "ends_in_deduplication": True,
    }
    done = sidlake(
        "import", path, "-f", "index_json", "-n", "letter", "-o", tmp_path / "short.parquet", "--levels", 2, "--width", 256
    )
    assert done.returncode == 0, done.stderr
    assert "3 items, 2 different SIDs of 256x256" in done.stdout
    assert read_assignment(tmp_path / "short.parquet", "parquet", name="letter").widths == (256, 256)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--format", "csv", "--name", "x"], 2, "unknown format 'csv'"),
        (["--format", "npy", "--name", "../x"], 2, "a name is letters, digits"),
        (["--format", "npy", "--name", "x"], 1, "ContractError"),
        (["--format", "grid", "--name", "x"], 1, "SourceError"),
    ],
)
def test_import_refuses_by_name_and_writes_nothing(tmp_path, arguments, code, says):
    path = npy(tmp_path / "sids", [[-1, 0], [1, 1], [0, 0]])
    done = sidlake("import", path, *arguments, "-w", tmp_path / "lake")
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "lake").exists()


def test_ids_of_a_file_are_spelled_as_a_catalogues_are(tmp_path):
    path = as_json(tmp_path / "i.json", {" cafe\u0301": ["<a_1>"], "b": ["<a_2>"]})
    assert read_assignment(path, "index_json", name="x").item_ids.to_pylist() == ["caf\u00e9", "b"]
    assert read_assignment(path, "index_json", name="x", uppercase_ids=True).item_ids.to_pylist() == ["CAF\u00c9", "B"]


def test_a_list_of_ids_may_begin_with_a_mark_and_end_in_empty_lines(tmp_path):
    np.save(tmp_path / "m.npy", np.array(CODES))
    (tmp_path / "ids.txt").write_bytes("\ufeffa\r\nb\r\nc\r\nd\r\n\r\n".encode())
    found = read_assignment(tmp_path / "m.npy", "npy", name="x", ids_path=tmp_path / "ids.txt")
    assert found.item_ids.to_pylist() == ["a", "b", "c", "d"]


def test_float_ids_are_refused(tmp_path):
    pq.write_table(pa.table({"item_id": [1.0, 2.0], "codes": [[1], [2]]}), tmp_path / "a.parquet")
    with pytest.raises(ContractError, match="identifiers are text or whole numbers"):
        read_assignment(tmp_path / "a.parquet", "parquet", name="x")


def test_codes_that_collapsed_are_refused_and_sound_ones_are_not():
    sound = pa.table({"item_id": [str(at) for at in range(32)], "codes": [[at % 8, at // 8] for at in range(32)]})
    require_sound(assignment_of_table(sound, name="x", widths=[8, 4]), [Gate(metric="level_utilisation", minimum=0.9)])
    one_code = sound.set_column(1, "codes", pa.array([[0, at] for at in range(32)]))
    with pytest.raises(GateFailed, match=r"level_largest_share \(level 0\): 1 is above"):
        require_sound(assignment_of_table(one_code, name="x", widths=[8, 32]))
    with pytest.raises(GateFailed, match="level_utilisation"):
        require_sound(assignment_of_table(sound, name="x", widths=[16, 4]), [Gate(metric="level_utilisation", minimum=0.9)])


def test_sids_of_items_that_the_catalogue_lacks_are_refused_by_example():
    table = pa.table({"item_id": ["a", "b", "z"], "codes": [[0, 0], [0, 1], [1, 0]]})
    found = assignment_of_table(table, name="x", widths=[2, 2])
    assert require_known_ids(found, pa.array(["a", "b", "c", "z"])) == 1
    with pytest.raises(ContractError, match=r"1 of 3 SIDs are of items that the catalogue does not have, such as z"):
        require_known_ids(found, pa.array(["a", "b", "c"]))


def test_sids_that_nearly_all_items_share_are_refused():
    codes = [[item % 7, item % 7] for item in range(100)]
    table = pa.table({"item_id": [str(item) for item in range(100)], "codes": codes})
    with pytest.raises(GateFailed, match=r"raw_collision_rate: 0.93 is above"):
        require_sound(assignment_of_table(table, name="x", widths=[8, 8]))
