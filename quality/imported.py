"""Semantic IDs that others published, read from their files into an `Assignment`, and written as one documented Parquet schema.

| format | what is read |
|---|---|
| ``index_json`` | LETTER, LC-Rec and MiniOneRec: ``{"0": ["<a_12>", "<b_3>", ...], ...}`` |
| ``grid`` | GRID's torch tensor, [levels, items] (or [items, levels]: the longer side is the items) |
| ``openonerec`` | JSON: item to ``<|sid_begin|><s_a_12><s_b_3>...<|sid_end|>``, to ``{"sid": such text}`` or to ``[12, 3, ...]`` |
| ``npy`` | an integer matrix [items, levels] (or [levels, items]) |
| ``parquet`` | `item_id` (or `pid`) with `codes`, a list of integers, or `sid`, text as above |

A tensor or matrix has no identifiers: an item's is its row number, unless a file with one per line is given. Nothing in a file is
run: JSON, Arrow, NumPy without objects, and of torch's format only tensors (``weights_only``). A file is read whole or refused:
`SourceError` where it cannot be read, `ContractError` where its rows break a rule. Memory: the file, and Python's lists of JSON.

Written: `item_id` string, `codes` list<int32>, rows sorted by item_id, and under the schema's key ``sidlake.assignment`` a JSON
object with format, name, source, widths and stripped; the ``parquet`` format reads it back.

Shapes: N items, L levels.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidlake.errors import ContractError, SourceError
from sidlake.quality.assignment import Assignment, ends_in_deduplication
from sidlake.quality.gates import COLLAPSE, Gate, judge, require_pass
from sidlake.quality.measure import measure_codes
from sidlake.quality.metrics.collision import group_sizes
from sidlake.tokenizers.item_ids import normal_ids, read_id_list
from sidlake.whole_files import replacing

__all__ = [
    "FORMATS",
    "assignment_of_table",
    "describe_assignment",
    "read_assignment",
    "require_known_ids",
    "require_sound",
    "write_assignment",
]

_KEY = b"sidlake.assignment"
_TOKEN = re.compile(r"<(?:[a-z]+_)?([a-z])_([0-9]{1,10})>")
_FRAME = re.compile(r"^<\|sid_begin\|>|<\|sid_end\|>$")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_Rows = tuple[Sequence[str] | None, Sequence[Sequence[int]] | npt.NDArray[Any], dict[str, Any]]


def read_assignment(
    path: Path,
    file_format: str,
    *,
    name: str,
    source: str = "",
    widths: Sequence[int] | None = None,
    num_levels: int | None = None,
    ids_path: Path | None = None,
    uppercase_ids: bool = False,
) -> Assignment:
    """Return the file's semantic IDs, of items spelled as a catalogue's are (`item_ids`).

    `widths` are the codes per level (one number stands for all levels), by default what a Parquet file of ours says, else each
    level's highest code + 1: a level whose last codes nobody uses then looks fuller than it is. With `num_levels` only so many
    first codes are kept, which also admits a file whose authors lengthened some SIDs to tell items apart. `ids_path` names the
    rows of ``grid`` and ``npy``, one per line.

    Raises `SourceError` for a file that is missing, cut short, or holds what its format does not; `ContractError` where SIDs differ
    in length, a code is negative or no integer, an item has several SIDs, or tokens are not those of levels a, b, c, ... in order;
    ValueError for an unknown format.
    """
    if file_format not in _READERS:
        msg = f"unknown format {file_format!r}; the formats are {', '.join(_READERS)}"
        raise ValueError(msg)
    if not path.is_file():
        msg = f"there is no file {path}"
        raise SourceError(msg, path=str(path))
    ids, rows, about = _READERS[file_format](path)
    codes_NL, longest = _matrix(rows, path, num_levels)
    ids = normal_ids(_row_names(len(codes_NL), path, ids_path) if ids is None else ids, uppercase=uppercase_ids)
    stripped = list(about.get("stripped", ()))
    if longest > codes_NL.shape[1]:
        stripped.append(f"codes from level {codes_NL.shape[1]} on, of up to {longest}: asked for the first {num_levels}")
    known = widths or about.get("widths", ())[: codes_NL.shape[1]] or (codes_NL.max(axis=0, initial=-1) + 1).tolist()
    return Assignment(
        name=name,
        item_ids=pa.array(ids, pa.string()),
        codes_NL=codes_NL,
        widths=_checked_widths(known, codes_NL.shape[1], path),
        source=source or str(about.get("source") or path.name),
        stripped=tuple(stripped),
    )


def assignment_of_table(
    table: pa.Table, *, name: str, widths: Sequence[int] | None = None, source: str = "", where: str = "table"
) -> Assignment:
    """Return the rows of an Arrow table with `item_id` (or `pid`) and `codes` (or `sid`), in their order.

    `where` names the table in errors. Raises `ContractError` as `read_assignment` does.
    """
    ids, rows = _columns(table, Path(where))
    codes_NL, _ = _matrix(rows, Path(where), None)
    known = widths or (codes_NL.max(axis=0, initial=-1) + 1).tolist()
    widths_L = _checked_widths(known, codes_NL.shape[1], Path(where))
    item_ids = pa.array(normal_ids(ids), pa.string())
    return Assignment(name=name, item_ids=item_ids, codes_NL=codes_NL, widths=widths_L, source=source)


def write_assignment(assignment: Assignment, path: Path) -> None:
    """Write the assignment as Parquet in the schema above, replacing `path` as a whole; equal assignments give equal files."""
    order = pc.sort_indices(assignment.item_ids)
    codes_NL = assignment.codes_NL[order.to_numpy()]
    offsets = pa.array(np.arange(len(codes_NL) + 1, dtype=np.int32) * np.int32(codes_NL.shape[1]))
    about = {
        "format": 1,
        "name": assignment.name,
        "source": assignment.source,
        "widths": list(assignment.widths),
        "stripped": list(assignment.stripped),
    }
    columns = {
        "item_id": assignment.item_ids.take(order),
        "codes": pa.ListArray.from_arrays(offsets, pa.array(codes_NL.ravel(), pa.int32())),
    }
    with replacing(path) as beside:
        pq.write_table(pa.table(columns).replace_schema_metadata({_KEY: json.dumps(about, sort_keys=True)}), beside)


def require_sound(assignment: Assignment, gates: Sequence[Gate] = ()) -> None:
    """Return where the codes have not collapsed and keep those of `gates` that codes alone can be held against.

    Raises `GateFailed` with each metric that refuses.
    """
    metrics = measure_codes(assignment.codes_NL, assignment.widths)
    names = {metric.metric for metric in metrics}
    require_pass(judge(metrics, (*COLLAPSE, *(gate for gate in gates if gate.metric in names - {"unique_share"}))))


def require_known_ids(assignment: Assignment, item_ids: pa.ChunkedArray | pa.Array) -> int:
    """Return how many of the catalogue's `item_ids` have no SID in `assignment`; each SID must be of an item that is there.

    Raises `ContractError` with the number of SIDs of unknown items and three of those.
    """
    known = pc.is_in(assignment.item_ids, value_set=item_ids.cast(pa.string()))
    strangers = assignment.item_ids.filter(pc.invert(known))
    if len(strangers):
        some = ", ".join(strangers.slice(0, 3).to_pylist())
        msg = (
            f"{assignment.name}: {len(strangers):,} of {len(assignment.item_ids):,} SIDs are of items that the catalogue does not "
            f"have, such as {some}; allowed are 0. Is a spelling different, or do the SIDs belong to another catalogue?"
        )
        raise ContractError(msg, unknown=len(strangers), items=len(assignment.item_ids))
    return len(item_ids) - len(assignment.item_ids)


def describe_assignment(assignment: Assignment) -> dict[str, Any]:
    """Return what a person wants to know of an assignment: name, items, different SIDs, widths, source, and what is left out."""
    return {
        "name": assignment.name,
        "items": assignment.num_items,
        "different_sids": len(group_sizes(assignment.codes_NL)),
        "widths": list(assignment.widths),
        "source": assignment.source,
        "stripped": list(assignment.stripped),
        "ends_in_deduplication": ends_in_deduplication(assignment.codes_NL),
    }


def _index_json(path: Path) -> _Rows:
    entries = _json_object(path)
    for item, tokens in entries.items():
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            msg = f"{path}: item {item!r} is {str(tokens)[:60]!r}; a list of tokens such as ['<a_12>', '<b_3>'] is needed"
            raise ContractError(msg, item_id=item)
    return list(entries), [_codes_of(item, "".join(tokens), path) for item, tokens in entries.items()], {}


def _openonerec(path: Path) -> _Rows:
    entries = _json_object(path)
    rows = []
    for item, value in entries.items():
        sid = value.get("sid") if isinstance(value, dict) else value
        rows.append(_codes_of(item, sid, path) if isinstance(sid, str) else _integers(item, sid, path))
    return list(entries), rows, {}


def _grid(path: Path) -> _Rows:
    import torch  # two seconds that the other formats need not wait

    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"{path} is no readable torch file of tensors alone (damaged, cut short, or with objects, never loaded): {reason}"
        raise SourceError(msg, path=str(path)) from error
    if not isinstance(tensor, torch.Tensor):
        msg = f"{path} holds a {type(tensor).__name__}; one tensor [levels, items] is needed: save it alone with torch.save"
        raise SourceError(msg, path=str(path))
    if tensor.is_floating_point() or tensor.is_complex():
        msg = f"{path} holds a tensor of {tensor.dtype}; codes are integers: this may be a table of vectors"
        raise ContractError(msg, dtype=str(tensor.dtype))
    return None, _items_first(tensor.numpy(), path), {}


def _npy(path: Path) -> _Rows:
    try:
        matrix = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        msg = f"{path} is no readable .npy matrix (damaged, cut short, or with pickled objects, which are not loaded): {error}"
        raise SourceError(msg, path=str(path)) from error
    if not isinstance(matrix, np.ndarray):
        msg = f"{path} holds several arrays; one matrix [items, levels] is needed: save it alone with numpy.save"
        raise SourceError(msg, path=str(path))
    return None, _items_first(matrix, path), {}


def _parquet(path: Path) -> _Rows:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        msg = f"{path} is no readable Parquet file (damaged, cut short or another format): {error}"
        raise SourceError(msg, path=str(path)) from error
    try:
        about = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    except ValueError as error:
        msg = f"{path}: the schema's {_KEY.decode()} is no JSON: {error}"
        raise SourceError(msg, path=str(path)) from error
    return *_columns(table, path), about if isinstance(about, dict) else {}


_READERS: dict[str, Callable[[Path], _Rows]] = {
    "index_json": _index_json,
    "grid": _grid,
    "openonerec": _openonerec,
    "npy": _npy,
    "parquet": _parquet,
}
FORMATS = tuple(_READERS)
"""Names of the formats."""


def _columns(table: pa.Table, path: Path) -> tuple[list[str], Sequence[Sequence[int]] | npt.NDArray[Any]]:
    """Return identifiers and rows of codes of a table; lists of one length come as a matrix, without Python objects."""
    id_name = next((name for name in ("item_id", "pid") if name in table.column_names), None)
    code_name = next((name for name in ("codes", "sid") if name in table.column_names), None)
    if id_name is None or code_name is None:
        msg = f"{path}: needs a column item_id (or pid) and a column codes (or sid); it has {', '.join(table.column_names)}"
        raise SourceError(msg, path=str(path))
    kind = table.schema.field(id_name).type
    if pa.types.is_floating(kind):
        msg = (
            f"{path}: column {id_name} is {kind}; identifiers are text or whole numbers: 12.0 and 12 would be two items, convert it"
        )
        raise ContractError(msg, type=str(kind))
    ids = table.column(id_name).cast(pa.string()).to_pylist()
    column = table.column(code_name).combine_chunks()
    if column.null_count:
        msg = f"{path}: {column.null_count} items have no {code_name}; leave them out"
        raise ContractError(msg, nulls=column.null_count)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return ids, [_codes_of(item, sid, path) for item, sid in zip(ids, column.to_pylist(), strict=True)]
    nested = pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    if not nested or not pa.types.is_integer(column.type.value_type):
        msg = f"{path}: column {code_name} is {column.type}; a list of integers, or text such as <a_12><b_3>, is needed"
        raise SourceError(msg, path=str(path))
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    flat = column.flatten()
    if flat.null_count:
        msg = f"{path}: {flat.null_count} codes are null; leave such items out"
        raise ContractError(msg, nulls=flat.null_count)
    if len(lengths) and lengths.min() == lengths.max() > 0:
        return ids, flat.to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return ids, column.to_pylist()


def _json_object(path: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            msg = f"{path}: {twice!r} is there more than once; keep one SID per item"
            raise ContractError(msg, item_id=twice)
        return entries

    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError, OSError) as error:
        msg = f"{path} is no readable JSON (damaged, cut short or another format): {error}"
        raise SourceError(msg, path=str(path)) from error
    if not isinstance(value, dict):
        msg = f"{path} holds a JSON {type(value).__name__}; an object from item to SID is needed"
        raise SourceError(msg, path=str(path))
    return value


def _codes_of(item: str, sid: str, path: Path) -> list[int]:
    """Return the codes of tokens such as ``<a_12><b_3>`` or ``<|sid_begin|><s_a_12><s_b_3><|sid_end|>``; 2 µs each."""
    body = _FRAME.sub("", sid.strip())
    tokens = _TOKEN.findall(body)
    if not tokens or _TOKEN.sub("", body) or "".join(letter for letter, _ in tokens) != _LETTERS[: len(tokens)]:
        msg = f"{path}: item {item!r} has the SID {sid[:80]!r}; tokens of levels a, b, c, ... in order are needed: <a_12><b_3>"
        raise ContractError(msg, item_id=item)
    return [int(code) for _, code in tokens]


def _integers(item: str, value: object, path: Path) -> list[int]:
    if not isinstance(value, list) or not all(isinstance(code, int) and not isinstance(code, bool) for code in value):
        msg = f"{path}: item {item!r} has {str(value)[:60]!r} for a SID; text of tokens or a list of integers is needed"
        raise ContractError(msg, item_id=item)
    return value


def _items_first(matrix: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """Return the matrix with items in rows: levels are the shorter side, and a square one says nothing."""
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.integer):
        msg = f"{path} holds {matrix.dtype} of shape {matrix.shape}; a matrix of integers is needed, items by levels"
        raise ContractError(msg, shape=matrix.shape)
    if matrix.shape[0] == matrix.shape[1]:
        msg = f"{path} has {matrix.shape[0]} rows and as many columns: which are the items cannot be told; use Parquet"
        raise ContractError(msg, shape=matrix.shape)
    return matrix if matrix.shape[0] > matrix.shape[1] else matrix.T


def _matrix(
    rows: Sequence[Sequence[int]] | npt.NDArray[Any], path: Path, num_levels: int | None
) -> tuple[npt.NDArray[np.int32], int]:
    """Return the first `num_levels` codes of each row (all, if None), int32, and the length of the longest row."""
    lengths = {rows.shape[1]} if isinstance(rows, np.ndarray) else {len(row) for row in rows}
    if not len(rows):
        msg = f"{path} has no items"
        raise ContractError(msg, path=str(path))
    shortest, longest = min(lengths), max(lengths)
    if shortest == 0 or (num_levels is None and shortest != longest) or (num_levels is not None and num_levels > shortest):
        wanted = f"at least {num_levels}" if num_levels else "as many for every item"
        msg = f"{path}: SIDs have {shortest} to {longest} codes, needed are {wanted}; keep the first levels only (num_levels)"
        raise ContractError(msg, shortest=shortest, longest=longest)
    kept = num_levels or shortest
    try:
        table = rows[:, :kept] if isinstance(rows, np.ndarray) else np.array([row[:kept] for row in rows], dtype=np.int64)
    except OverflowError as error:
        msg = f"{path}: a code exceeds 64 bits; allowed is [0, 2**31 - 1)"
        raise ContractError(msg, path=str(path)) from error
    low, high = int(table.min()), int(table.max())
    if low < 0 or high >= 2**31 - 1:
        msg = f"{path}: codes range over [{low}, {high}]; allowed is [0, 2**31 - 1); leave items without a SID out"
        raise ContractError(msg, low=low, high=high)
    return np.ascontiguousarray(table.astype(np.int32)), longest


def _row_names(num_items: int, path: Path, ids_path: Path | None) -> list[str]:
    if ids_path is None:
        return [str(row) for row in range(num_items)]
    try:
        names = read_id_list(ids_path)
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{ids_path} is no readable text file of identifiers, one per line: {error}"
        raise SourceError(msg, path=str(ids_path)) from error
    if len(names) != num_items:
        msg = f"{ids_path} has {len(names)} identifiers, {path} has {num_items} items; they must agree"
        raise ContractError(msg, names=len(names), items=num_items)
    return names


def _checked_widths(widths: Iterable[int], num_levels: int, path: Path) -> tuple[int, ...]:
    found = tuple(int(width) for width in widths)
    found = found * num_levels if len(found) == 1 else found
    if len(found) != num_levels:
        msg = f"{path}: {len(found)} widths for {num_levels} levels; give one per level"
        raise ContractError(msg, widths=found, num_levels=num_levels)
    return found
