"""Bad inputs and the error each ends in: one table, run by test_faults_bad_inputs.py and printed as docs/bad-inputs.md.

    python tests/bad_inputs.py    # writes docs/bad-inputs.md anew

A case gets an empty folder, does something wrong in it, and must end in the error by that name, whose message holds `says`. The
command line runs in this process; where it refuses an argument itself, the error is called "usage" (exit code 2).
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import warehouse_sample as sample
from bad_input_acts import (
    BOUGHT,
    EVENTS,
    GOOD,
    UsageError,
    command,
    cut,
    damaged,
    data_file,
    flip,
    importing,
    ingesting,
    loaded_codebook,
    log_file,
    on_release,
    reading,
    republish,
    second_writer,
    taken_up,
    tokenizing,
    using,
    vectors,
    verified,
)

from sidlake.errors import SidlakeError
from sidlake.pipelines.recipe import load_recipe
from sidlake.warehouse.releases import rollback
from sidlake.warehouse.tables import Warehouse

DOCS = Path(__file__).resolve().parent.parent / "docs" / "bad-inputs.md"


@dataclass(frozen=True)
class BadInput:
    """What is wrong, where, and how it ends."""

    area: str
    name: str
    error: str
    says: str
    act: Callable[[Path], object]


# -------------------------------------------------------------------------------------------------------------- the table

_SHARE = "\nmax_rejected_share = 1.0\n"
_LEVEL = {"level": 0, "node": 0, "code": 0, "child_start": 0, "child_end": 0, "item_id": None}

SOURCES = [
    ("file that is not there", "SourceError", "no such file", ingesting(None)),
    ("empty file", "SourceError", "cannot be read as parquet", ingesting(b"")),
    ("file of another format", "SourceError", "cannot be read as parquet", ingesting(b"PK\x03\x04 a zip")),
    ("line that is not JSON", "SourceError", "damaged", ingesting(b'{"id": "a", "name": "x"}\n{"id": ', form="jsonl")),
    ("CSV that is not UTF-8", "SourceError", "line 2 is not utf-8", ingesting(b"id,name\na,\xff\xfe\xff\n", form="csv")),
    (
        "CSV line with too many fields", "SourceError", "has 4 values, the header has 2",
        ingesting(b"id,name\na,x\nb,y,z,w\n", form="csv"),
    ),
    ("no such column", "SourceError", "no column 'name'", ingesting({"id": ["a"], "nam": ["x"]})),
    ("no such column in the events", "SourceError", "no column 'at'", ingesting(GOOD, {"user": ["u"], "item": ["a"]})),
    ("no rows", "ContractError", "no item left of 0 rows", ingesting({"id": pl.Series([], dtype=pl.String), "name": []})),
    ("no identifiers", "ContractError", "rows rejected, allowed 10.0%", ingesting({"id": [None, ""], "name": ["x", "y"]})),
    ("no text", "ContractError", "no item left of 1 rows", ingesting({"id": ["a"], "name": [" "]}, recipe=_SHARE)),
    ("same identifier twice", "ContractError", "duplicate_item_id", ingesting({"id": ["a", "a"], "name": ["x", "y"]})),
    ("identifiers that are fractions", "ContractError", "an identifier is a string", ingesting({"id": [1.5], "name": ["x"]})),
    ("identifiers that are lists", "ContractError", "an identifier is a string", ingesting({"id": [["a"]], "name": ["x"]})),
    (
        "price that is text", "ContractError", "a price is a number",
        ingesting(GOOD | {"p": ["one", "1,234"]}, recipe='\nprice = { column = "p" }'),
    ),
    (
        "date that is text", "ContractError", "a timestamp column is a date",
        ingesting(GOOD | {"d": ["1", "2"]}, recipe='\nfirst_seen = { column = "d" }'),
    ),
    ("event time that is text", "ContractError", "a timestamp column is", ingesting(GOOD, BOUGHT | {"at": ["now", "now"]})),
    ("event time without a day", "ContractError", "a timestamp column is", ingesting(GOOD, BOUGHT | {"at": [time(1), time(2)]})),
    (
        "weight that is text", "ContractError", "a weight is a number above 0",
        ingesting(GOOD, BOUGHT | {"n": ["two", "three"]}, recipe='\nweight = "n"'),
    ),
    ("events of unknown items", "ContractError", "unknown_item 2", ingesting(GOOD, BOUGHT | {"item": ["x", "y"]})),
    (
        "events of the future", "ContractError", "future_timestamp 2",
        ingesting(GOOD, BOUGHT | {"at": [datetime(2999, 1, 1)] * 2}),
    ),
    ("events without a user", "ContractError", "missing_user_id 2", ingesting(GOOD, BOUGHT | {"user": [None, ""]})),
    (
        "no event left", "ContractError", "leave [interactions] out",
        ingesting(GOOD, BOUGHT | {"item": ["x", "y"]}, recipe=_SHARE),
    ),
    (
        "rule on a column without numbers", "ContractError", "r 2, such as 'red cup'",
        ingesting(recipe='[[sources.items.rules]]\nname = "r"\ncolumn = "name"\nat_most = 3.0'),
    ),
    (
        "rule with a broken pattern", "ContractError", "regex",
        ingesting(recipe='[[sources.items.rules]]\nname = "r"\ncolumn = "name"\nmatches = "("'),
    ),
    (
        "list expected, text found", "ContractError", "wrong type",
        ingesting(recipe=EVENTS.replace('ts = "at"', "sequences = true").replace("events.parquet", "items.parquet")
                  .replace('"user"', '"id"').replace('"item"', '"name"')),
    ),
    ("vectors that are not there", "EncoderError", "There is no file", vectors()),
    ("vectors without their column", "EncoderError", "no column 'vector'", vectors({"item_id": ["a"]})),
    ("vectors that are text", "EncoderError", "a list of numbers is needed", vectors({"item_id": ["a"], "vector": ["1 2"]})),
    (
        "vectors of two lengths", "EncoderError", "all must have the same",
        vectors({"item_id": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}),
    ),
    ("vector that is not finite", "EncoderError", "is not finite", vectors({"item_id": ["a"], "vector": [[float("nan")]]})),
    ("two vectors of one item", "EncoderError", "more than once", vectors({"item_id": ["a", "a"], "vector": [[1.0], [2.0]]})),
    ("vectors of other items", "EncoderError", "knows none of the 2 items", vectors({"item_id": ["x"], "vector": [[1.0]]})),
    ("vectors that are pickled objects", "EncoderError", "without objects", vectors(data=np.array([{"a": 1}], dtype=object))),
    ("fewer identifiers than vectors", "EncoderError", "they must agree", vectors(data=np.ones((2, 3)), ids="a\n")),
]  # fmt: skip

RECIPES = [
    ("recipe that is not there", "RecipeError", "No such file", lambda folder: load_recipe(folder / "none.toml")),
    ("recipe that is a folder", "RecipeError", "Is a directory", load_recipe),
    ("not TOML", "RecipeError", "not TOML", reading(b"name = ")),
    ("not text", "RecipeError", "not TOML", reading(b"\xff\xfe\x00")),
    ("unknown key", "RecipeError", "unknown key items.titel; allowed here", reading('titel = "x"')),
    ("key that is missing", "RecipeError", "missing key items.item_id", reading("", 'item_id = "id"\n', "")),
    ("value of another type", "RecipeError", "items.item_id must be str, got 3", reading("", '"id"', "3")),
    ("path outside", "RecipeError", "unknown key folder", reading("", "name = \"bad\"", "name = \"bad\"\nfolder = '/'")),
    ("source that is not named", "RecipeError", "are not among", reading("", 'source = "items"', 'source = "lines"')),
    ("format that is not known", "RecipeError", "format must be one of", reading("", 'path = ', 'format = "xlsx"\npath = ')),
    ("share above 1", "RecipeError", "between 0 and 1, got 1.5", reading("max_rejected_share = 1.5")),
    ("latest without an order", "RecipeError", "needs order_by", reading("", '"name" }', '"name", pick = "latest" }')),
    ("rule without a predicate", "RecipeError", "needed exactly 1", reading('[[sources.items.rules]]\nname = "r"\ncolumn = "c"')),
    ("time and sequences", "RecipeError", "exactly one of ts", reading(EVENTS + "sequences = true")),
    ("hold-out of no days", "RecipeError", "must be >= 1", reading("[split]\nholdout_days = 0")),
    ("tokenizer that is not known", "RecipeError", "tokenizer.kind must be one of", reading('[tokenizer]\nkind = "magic"')),
    ("width that is a truth value", "RecipeError", "must be int, got True", reading("[tokenizer]\nwidths = [8, true]")),
    ("width of nothing", "RecipeError", "width", tokenizing("widths = [8, 0]")),
    ("no level", "RecipeError", "widths", tokenizing("widths = []\n[tokenizer.options]")),
    ("option the tokenizer does not have", "RecipeError", "unknown key", tokenizing("[tokenizer.options]\nspeed = 3")),
    ("setting in the wrong table", "RecipeError", "belong to [tokenizer] itself", reading("[tokenizer.options]\nseed = 1")),
    ("uniqueness that is not known", "RecipeError", "uniqueness must be one of", reading('[tokenizer]\nuniqueness = "hope"')),
    ("gate without a limit", "RecipeError", "give minimum, maximum or both", reading('[[gates]]\nmetric = "unique_share"')),
    (
        "gate that nothing passes", "RecipeError", "exceeds maximum",
        reading('[[gates]]\nmetric = "unique_share"\nminimum = 0.9\nmaximum = 0.1'),
    ),
    ("fusion of what is not there", "RecipeError", "non-empty subset", reading("[encoders.fusion.image]\nweight = 1.0")),
    ("behaviour without events", "RecipeError", "need an [interactions] section", reading("[encoders.behaviour]")),
    ("pictures without a column", "RecipeError", "image", reading("[encoders.image]\n")),
    (
        "model that its heads do not divide", "RecipeError", "multiple of num_heads",
        reading(EVENTS + "[trainer]\nd_model = 10\nnum_heads = 3"),
    ),
    ("method that is not there", "RecipeError", "No such file", reading("", "name =", 'method = "no.toml"\nname =')),
]  # fmt: skip

COMMANDS = [
    ("command that is not known", "usage", "No such command", command("publish")),
    ("job that is not known", "usage", "the jobs are refresh and retrain", command("run", "rebuild")),
    ("engine that is not known", "usage", "the engines are local and beam", command("run", "refresh", "--engine", "x", "-w", "{}")),
    ("no workers", "usage", "--workers", command("run", "refresh", "--workers", "0")),
    ("port out of range", "usage", "--port", command("ui", "--port", "70000")),
    ("option without a value", "usage", "requires an argument", command("status", "-w")),
    ("warehouse that is not there", "usage", "make one with: sidlake run retrain", command("status", "-w", "{}/none")),
    ("warehouse that is a file", "StorageError", "name a writable directory", lambda folder: (
        (folder / "file").touch(), command("run", "refresh", "-w", "{}/file")(folder),
    )),
    ("path that Delta cannot use", "StorageError", "choose another", lambda folder: Warehouse.create_or_open(folder / "a%b")),
    ("path that DuckDB cannot use", "StorageError", "contains '?'", lambda folder: Warehouse.create_or_open(folder / "a?b")),
    ("nothing published yet", "NotFoundError", "run the pipeline first", command("status", "-w", "{}")),
    ("item that is not there", "NotFoundError", "no item or SID 'nobody'", on_release("show", "nobody")),
    ("SID that is not there", "NotFoundError", "no item or SID '<a_9><b_9>'", on_release("show", "<a_9><b_9>")),
    ("release that is not there", "NotFoundError", "there are r000001", on_release("report", "r000009")),
    ("export in a format that is not known", "usage", "No such command", command("export", "pickle")),
    ("export of a release that is not there", "NotFoundError", "there are r000001", on_release(
        "export", "grid", "{}/out", "--release", "r000009",
    )),
    ("export over a folder", "ContractError", "do not overwrite", on_release("export", "grid", "{}")),
    ("more dense levels than SIDs have codes", "ContractError", "1 to 2 dense levels", on_release(
        "export", "static", "{}/out", "--dense-levels", "3",
    )),
    ("SQL that is not SQL", "usage", "syntax error", on_release("query", "selec 1")),
    ("column that is not there", "usage", "not found", on_release("query", "select price_in_euro from items")),
    ("SQL that writes", "usage", "expected one SELECT", on_release("query", "drop table items")),
    ("two statements", "usage", "expected one SELECT statement, got 2", on_release("query", "select 1; select 2")),
    ("SQL that reads other files", "usage", "disabled", on_release("query", "select * from read_text('/etc/hostname')")),
    ("import of a format not known", "usage", "the formats are", importing("{}", "-f", "xml", "-n", "x")),
    ("name that leaves the folder", "usage", "cannot name a file", importing("{}", "-f", "index_json", "-n", "../x")),
    ("import of nothing", "SourceError", "sids.json", importing("")),
    ("import of an item named twice", "ContractError", "more than once", importing('{"a": ["<a_1>"], "a": ["<a_2>"]}')),
    ("import of SIDs of two lengths", "ContractError", "levels", importing('{"a": ["<a_1>"], "b": ["<a_2>", "<b_1>"]}')),
    (
        "import of codes beyond their width", "ContractError", "allowed is [0, 4)",
        importing('{"a": ["<a_9>"]}', "-f", "index_json", "-n", "x", "--width", "4"),
    ),
]  # fmt: skip

STORED = [
    ("data file that is gone", "StorageError", "is missing", damaged(lambda w: data_file(w).unlink(), verified)),
    ("data file cut short", "StorageError", "the log says", damaged(lambda w: cut(data_file(w)), verified)),
    ("data file with a changed bit", "StorageError", "files are not as they were published", damaged(
        lambda w: flip(data_file(w)), lambda w: rollback(w, "r000001", "x"),
    )),
    ("log that is not JSON", "StorageError", "items", damaged(lambda w: log_file(w).write_text("{"), verified)),
    ("log that is gone", "NotFoundError", "items", damaged(lambda w: log_file(w).unlink(), verified)),
    ("version that is not there", "NotFoundError", "has versions 0 to 0", using(lambda w: republish(w, items=7))),
    ("table that is not there", "LawBroken", "missing items", using(lambda w: republish(w, items=None))),
    ("release that nobody judged", "LawBroken", "run the quality step", using(lambda w: republish(w, sid_quality=None))),
    ("item without a SID", "LawBroken", "every item has a SID", damaged(
        lambda w: w.append("items", sample.items(["new"]), run_id="run"), lambda w: republish(w, items=1),
    )),
    ("one SID for two items", "LawBroken", "every SID belongs to one item", damaged(
        lambda w: w.overwrite("semantic_ids", sample.semantic_ids(sample.item_ids(12), [[0, 0, 0]] * 12), run_id="run"),
        lambda w: republish(w, semantic_ids=1),
    )),
    ("published SID that moved", "LawBroken", "moved within its generation", damaged(
        lambda w: w.overwrite("semantic_ids", sample.semantic_ids(sample.item_ids(12), sample.codes_of(12, skip=5)), run_id="run"),
        lambda w: republish(w, semantic_ids=1),
    )),
    ("trie that spells something else", "LawBroken", "trie", damaged(
        lambda w: w.overwrite("sid_trie", pa.Table.from_pylist([_LEVEL], sample.CONTRACTS["sid_trie"]), run_id="run"),
        lambda w: republish(w, sid_trie=1),
    )),
    ("gate that refused", "GateFailed", "refused publication", damaged(
        lambda w: w.overwrite("sid_quality", sample.quality("refuse", 0.9), run_id="run"), lambda w: republish(w, sid_quality=1),
    )),
    ("release that is not the latest any more", "ReleaseConflict", "run again to build on r000001", using(
        lambda w: republish(w, parent=None),
    )),
    ("second writer", "WarehouseBusy", "being written by run first", second_writer),
    ("rollback to what is not there", "NotFoundError", "there are r000001", using(lambda w: rollback(w, "r9", "x"))),
    ("column that no contract has", "ContractError", "unknown columns ['extra']", lambda folder: Warehouse.create_or_open(
        folder
    ).append("items", sample.items(["a"]).append_column("extra", pa.array([1])), run_id="run")),
    ("null where none may be", "ContractError", "has 1 nulls, allowed 0", lambda folder: Warehouse.create_or_open(folder).append(
        "items", sample.items(["a"]).set_column(0, "item_id", pa.array([None], pa.string())), run_id="run",
    )),
    ("run id that leaves the folder", "ValueError", "it names a directory", lambda folder: Warehouse(folder).staging("../x")),
    ("state of a run that is not JSON", "RunStateError", "cannot be used", lambda folder: taken_up(folder, '{"tables": ')),
    ("state of a run that lacks a part", "RunStateError", "lacks", lambda folder: taken_up(folder, '{"tables": {}}')),
    ("codebook that is not there", "ArtifactError", "no codebook at", lambda folder: loaded_codebook(folder, None)),
    ("codebook that is a pickle", "ArtifactError", "not a readable", lambda folder: loaded_codebook(folder, pickle.dumps([1]))),
]  # fmt: skip

TABLE = [
    BadInput(area, *case)
    for area, cases in (
        ("sources", SOURCES), ("recipes", RECIPES), ("command line", COMMANDS), ("stored state", STORED),
    )
    for case in cases
]  # fmt: skip


def outcome(case: BadInput, folder: Path) -> tuple[str, str]:
    """Return the name of the error that `case` ends in, and its message."""
    try:
        case.act(folder)
    except UsageError as error:
        return "usage", str(error)
    except (SidlakeError, ValueError) as error:
        return type(error).__name__, str(error)
    return "nothing", "it was accepted"


def page() -> str:
    """Return docs/bad-inputs.md."""
    lines = [
        "# Bad inputs and what they end in",
        "",
        f"{len(TABLE)} bad inputs, each run by `tests/test_faults_bad_inputs.py`; this page is made from the same table by",
        "`python tests/bad_inputs.py`. A message says what is wrong, the value, the limit and what to do; *usage* is exit code 2",
        "of the command line. Nothing is published in any of these cases.",
    ]
    for area in dict.fromkeys(case.area for case in TABLE):
        lines += ["", f"## {area.capitalize()}", "", "| what is wrong | error | its message holds |", "|---|---|---|"]
        lines += [f"| {case.name} | {case.error} | {_code(case.says)} |" for case in TABLE if case.area == area]
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return "`" + re.sub(r"\|", r"\\|", text) + "`"


if __name__ == "__main__":
    DOCS.write_text(page(), encoding="utf-8")
    print(json.dumps({"cases": len(TABLE), "written": str(DOCS.name)}))
