"""Random sources through the ingest step: whatever a file holds, it ends in tables that keep their contracts or in one named error.

    python benchmarks/fuzz_sources.py --minutes 5 --json

An input is a recipe with random uses, picks, types and rules of columns, over one to three files of random Parquet (any type of
Arrow), CSV (random dialects, quotes, bytes) or JSON lines (random values). It is run in this process, in a warehouse of its own;
of a folder the last file comes in a second run, which must make the same of it alone as of all files. `tracebacks` counts errors
that are none of ours, `differences` second runs that read the new file alone and say something else; the first of each are printed
with the seed that makes them again (``--seed N --inputs 1``).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sidlake.errors import SidlakeError
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, run_step
from sidlake.pipelines.run_state import RunState
from sidlake.pipelines.steps import STEPS
from sidlake.warehouse.releases import Release
from sidlake.warehouse.tables import Warehouse

__all__ = ["Outcome", "fuzz", "one_input"]

_SHOWN = 5
_TEXTS = [
    "", " ", "a", "red cup", "007", "12.0", "1,234.50", "£3", "12,5", "NaN", "inf", "-1", "1e400", "9" * 25, "é", "e\u0301",
    "\ufeffx", "\x00", "\x1b[31mred", "a|b|c", '["a", "b"]', '[["a"], ["b"]]', '{"a": 1}', "[" * 50, "2024-03-01", "\r",
    "2024-03-01T09:00:00Z", "03/04/2024", "1709283600", "1709283600000", "0001-01-01", "9999-12-31T23:59:59+14:00", "2024-02-30",
    "<b>x</b> &amp; y", '12" pipe', "a\nb", "a;b", "a\tb", "data:image/png;base64,AAAA", "iVBORw0KGgo" + "A" * 60, "../x.png",
    "x" * 300, "👩‍👩‍👧", "true", "null", "None", "=1+1", "\u202e",
]  # fmt: skip
_NAMES = [
    "id",
    "name",
    "price",
    "at",
    "cat",
    "item_id",
    "user_id",
    "__row",
    "__file",
    "ts",
    "a b",
    "a.b",
    "",
    "é",
    "text",
    "weight",
    "0",
    "*",
]
_SANE = ["the id", "the name", "the time", "the price"]
_BYTES = [b"", b"\xff\xfe\x00", b"\x00" * 9, b"\x89PNG\r\n", "señor".encode("cp1252"), b"PAR1", b"\x1f\x8b\x08", b'"', b"\r\n\r\n"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one input ended: ``tables``, the name of our error, or ``traceback`` and ``difference`` with what to look at."""

    end: str
    what: str = ""


@dataclass(slots=True)
class Tally:
    """Ends of all inputs, and the first that should not be."""

    ends: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)


def fuzz(*, seconds: float, seed: int, inputs: int | None = None) -> Tally:
    """Return how inputs of the seeds from `seed` on ended, as many as fit into `seconds` or are asked for."""
    tally, start = Tally(), time.monotonic()
    while time.monotonic() - start < seconds and (inputs is None or tally.ends.total() < inputs):
        outcome = one_input(seed + tally.ends.total())
        if outcome.end in ("traceback", "difference") and len(tally.shown) < _SHOWN:
            tally.shown.append(f"seed {seed + tally.ends.total()}: {outcome.end}\n{outcome.what}")
        tally.ends[outcome.end] += 1
    return tally


def one_input(seed: int) -> Outcome:
    """Return how the input of `seed` ended; equal seeds make equal inputs."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="sidlake-fuzz-") as temporary:
        folder = Path(temporary)
        try:
            return _run(folder, draw)
        except SidlakeError as error:
            return Outcome(type(error).__name__, str(error))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            return Outcome("traceback", (folder / "recipe.toml").read_text(encoding="utf-8") + traceback.format_exc()[-3000:])


def _run(folder: Path, draw: random.Random) -> Outcome:
    names = draw.sample(_NAMES, draw.randint(2, 8))
    form = draw.choice(["parquet", "csv", "jsonl"])
    rows = folder / "rows"
    rows.mkdir()
    schema = {name: _kind(draw, depth=0) for name in names}
    if draw.random() < 0.8:  # most inputs can be read, or nothing behind the first error would be tried
        names = [*_SANE, *names]
        schema = {names[0]: pa.string(), names[1]: pa.string(), names[2]: pa.timestamp("us"), names[3]: pa.string(), **schema}
    for number in range(draw.randint(1, 3)):
        _write(rows / f"{number}.{form}", form, schema, draw)
    (folder / "recipe.toml").write_text(_recipe(names, form, draw), encoding="utf-8")
    last = max(rows.iterdir())
    late = folder / last.name
    if len(list(rows.iterdir())) > 1:
        last.rename(late)
    warehouse = Warehouse.create_or_open(folder / "added")
    ctx = _ingested(RunContext.open(warehouse, load_recipe(folder / "recipe.toml"), run_id="first", job="retrain"))
    if not late.exists():
        return Outcome("tables")
    late.rename(last)
    shutil.copytree(folder / "added", folder / "whole", ignore=shutil.ignore_patterns("cache"))
    added, whole = _second(ctx, folder / "added"), _second(ctx, folder / "whole")
    same = isinstance(whole, str) or isinstance(added, str) or all(_rows(whole[name]) == _rows(added[name]) for name in whole)
    if same and isinstance(whole, str) != isinstance(added, str):
        same = False
    return Outcome("tables") if same else Outcome("difference", (folder / "recipe.toml").read_text(encoding="utf-8"))


def _rows(table: pa.Table) -> list[str]:
    names = [name for name in table.column_names if name not in ("run_id", "updated_at")]
    return sorted(repr(row) for row in table.select(names).to_pylist())


def _ingested(ctx: RunContext) -> RunContext:
    with ctx.warehouse.writing(ctx.run_id):
        run_step(ctx, STEPS["ingest"])
    return ctx


def _second(first: RunContext, root: Path) -> dict[str, pa.Table] | str:
    """Return the tables of a run on top of `first` in the warehouse at `root`, or the name of our error."""
    try:
        ctx = _ingested(_on_top(first, Warehouse.create_or_open(root)))
    except SidlakeError as error:
        return type(error).__name__
    return {table: ctx.read(table) for table in ("items", "interactions", "rejected_rows") if table in ctx.tables}


def _on_top(ctx: RunContext, warehouse: Warehouse) -> RunContext:
    """Return a run on top of what `ctx` has written, as if that were released: a release takes SIDs, which nobody asks for here."""
    kept = {"tables": ctx.tables, "steps": ctx.state.steps, "inputs": ctx.state.inputs, "generation": "g0001"}
    others: dict[str, Any] = {name: None for name in Release.__dataclass_fields__ if name not in kept}
    base = Release(**(others | kept | {"release_id": "r000001", "created_at": ctx.now, "encoders": {}, "metrics": {}}))
    return RunContext(
        warehouse=warehouse, recipe=ctx.recipe, run_id="second", job="retrain", engine=ctx.engine, progress=ctx.progress,
        base=base, state=RunState.of(base, ctx.now),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------- files


def _kind(draw: random.Random, *, depth: int) -> pa.DataType:
    plain = [
        pa.string(), pa.string(), pa.string(), pa.large_string(), pa.binary(), pa.int8(), pa.int64(), pa.uint64(), pa.float32(),
        pa.float64(), pa.bool_(), pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("us", tz="UTC"), pa.timestamp("ns"),
        pa.timestamp("ms", tz="Europe/London"), pa.time32("s"), pa.duration("us"), pa.decimal128(12, 2), pa.null(),
        pa.dictionary(pa.int32(), pa.string()), pa.binary(3),
    ]  # fmt: skip
    if depth < 2 and draw.random() < 0.25:
        inner = _kind(draw, depth=depth + 1)
        kinds = [
            pa.list_(inner),
            pa.large_list(inner),
            pa.list_(inner, 2),
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ]
        return draw.choice([*kinds, pa.struct([("a", inner), ("b", pa.string())]), pa.map_(pa.string(), pa.int64())])
    return draw.choice(plain)


def _value(kind: pa.DataType, draw: random.Random) -> Any:  # noqa: ANN401  a value of any type
    if pa.types.is_null(kind) or draw.random() < 0.15:
        return None
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return draw.choice(_TEXTS) if draw.random() < 0.7 else f"text {draw.randrange(20)}"
    if pa.types.is_fixed_size_binary(kind):
        return b"abc"
    if pa.types.is_binary(kind):
        return draw.choice(_BYTES)
    if pa.types.is_boolean(kind):
        return draw.random() < 0.5
    if pa.types.is_integer(kind):
        low, high = (0, 255) if kind == pa.int8() else (0, 2**64 - 1 if kind == pa.uint64() else 2**63 - 1)
        return draw.choice([low, min(high, 127), draw.randrange(100), *([1_709_283_600, high] if high > 2**40 else [])])
    if pa.types.is_floating(kind):
        return draw.choice([0.0, -1.5, 12.0, float("nan"), float("inf"), 1.7e9, 1e300 if kind == pa.float64() else 1e30])
    if pa.types.is_decimal(kind):
        return Decimal(draw.choice(["0.00", "-1.50", "9999999.99"]))
    if pa.types.is_date(kind):
        return draw.choice([date(1, 1, 1), date(1970, 1, 1), date(2024, 3, 1), date(9999, 12, 31)])
    if pa.types.is_timestamp(kind):
        return draw.choice([datetime(1970, 1, 1), datetime(2024, 3, 1, 9), datetime(2200, 1, 1)])
    if pa.types.is_time(kind):
        return datetime(2024, 1, 1, 9, 30).time()
    if pa.types.is_duration(kind):
        return timedelta(seconds=draw.randrange(10**6))
    if pa.types.is_map(kind):
        return [("k", draw.randrange(9))]
    if pa.types.is_struct(kind):
        return {one.name: _value(one.type, draw) for one in kind}
    length = kind.list_size if pa.types.is_fixed_size_list(kind) else draw.randrange(4)
    return [_value(kind.value_type, draw) for _ in range(length)]


def _sane(name: str, draw: random.Random) -> Any:  # noqa: ANN401  a value of any type
    """Return a value of a column that most inputs have, None for other columns and now and then."""
    if draw.random() < 0.03:
        return None
    if name == "the id":
        return draw.choice(["a", "B", "007", "e\u0301", f"i{draw.randrange(9)}"])
    if name == "the name":
        return draw.choice([f"name {draw.randrange(9)}", *_TEXTS[:5]])
    if name == "the time":
        return datetime(2024, 1, 1) + timedelta(hours=draw.randrange(200))
    if name == "the price":
        return draw.choice(["1.50", "2", "1,234.50", "£3", "7"])
    return None


def _sane_text(name: str, draw: random.Random) -> str | None:
    value = _sane(name, draw)
    return value.isoformat() if isinstance(value, datetime) else value


def _write(path: Path, form: str, schema: dict[str, pa.DataType], draw: random.Random) -> None:
    count = draw.choice([0, 1, 5, 30])
    if form == "parquet":
        columns = {
            name: pa.array([_sane(name, draw) or _value(kind, draw) for _ in range(count)], kind) for name, kind in schema.items()
        }
        pq.write_table(pa.table(columns), path)
    elif form == "jsonl":
        lines = [
            json.dumps({name: _sane_text(name, draw) or _json(draw, 0) for name in schema if draw.random() < 0.95})
            for _ in range(count)
        ]
        path.write_bytes("\n".join(lines).encode() + draw.choice([b"", b"\n", *_BYTES[:1]]))
    else:
        path.write_bytes(_csv(list(schema), count, draw))
    if draw.random() < 0.03:  # a file that is damaged
        data = bytearray(path.read_bytes())
        for _ in range(draw.randrange(1, 6)):
            if data:
                data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(bytes(data[: draw.randrange(len(data) + 1)]) if draw.random() < 0.3 else bytes(data))


def _json(draw: random.Random, depth: int) -> Any:  # noqa: ANN401  a JSON value
    plain = [
        None,
        True,
        0,
        -7,
        10**25,
        1.5,
        12.0,
        1_709_283_600,
        *(draw.choice(_TEXTS) for _ in range(6)),
        f"text {draw.randrange(20)}",
    ]
    if depth < 3 and draw.random() < 0.15:
        entries = [_json(draw, depth + 1) for _ in range(draw.randrange(4))]
        return entries if draw.random() < 0.6 else {draw.choice(["a", "b", "bytes", "path"]): one for one in entries}
    return draw.choice(plain)


def _csv(names: list[str], count: int, draw: random.Random) -> bytes:
    delimiter = draw.choice([",", ",", ",", ";", "\t", "|"])
    end = draw.choice(["\n", "\r\n", "\r"])

    def cell(value: str) -> str:
        if draw.random() < 0.99 and any(sign in value for sign in f'{delimiter}"\r\n'):
            return '"' + value.replace('"', '""') + '"'
        return value

    lines = [delimiter.join(cell(name) for name in names)]
    for _ in range(count):
        row = [
            _sane_text(name, draw) or (draw.choice(_TEXTS) if draw.random() < 0.5 else f"text {draw.randrange(20)}")
            for name in names
        ]
        row = row[: draw.randrange(len(row) + 1)] if draw.random() < 0.01 else row
        lines.append(delimiter.join(cell(value) for value in row))
    encoding = draw.choice(["utf-8"] * 20 + ["utf-8-sig", "utf-16", "cp1252"])
    return end.join(lines).encode(encoding, errors="replace") + (draw.choice(_BYTES) if draw.random() < 0.05 else b"")


# ------------------------------------------------------------------------------------------------------------------ recipes


def _recipe(names: list[str], form: str, draw: random.Random) -> str:
    def name() -> str:
        return _quoted(draw.choice(names) + (".a" if draw.random() < 0.03 else ""))

    sane = names[: len(_SANE)] == _SANE

    def good(which: int) -> str:
        return _quoted(names[which]) if sane and draw.random() < 0.9 else name()

    def pick(what: str) -> str:
        ordered = [] if what in ("category", "image") else ["min", "max"] if what == "title" else ["min", "max", "median"]
        return draw.choice(["only", "latest", "first", "most_common", *ordered, *(["median"] if draw.random() < 0.02 else [])])

    lines = ['name = "fuzz"', "[sources.rows]", 'path = "rows"', *([f'format = "{form}"'] if draw.random() < 0.5 else [])]
    lines += draw.choice(
        [[], [], ['decimal = ","'], ['null_values = ["NaN", "null"]'], ['quote = ""'], *[[]] * 9, ['encoding = "cp1252"']]
    )
    kinds = [
        '"integer"',
        '"text"',
        '"number"',
        '"time"',
        '"list"',
        '{ separator = "|" }',
        '{ format = "%m/%d/%Y" }',
        '{ unit = "s" }',
    ]
    kinds += ["{ html = true }", '{ zone = "Europe/London" }', '{ decimal = "," }', '{ format = "%Q%%" }']
    types = {_quoted(draw.choice(names[:4])): draw.choice(kinds) for _ in range(draw.choice([0, 0, 0, 1, 2]))}
    lines += ["types = { " + ", ".join(f"{column} = {kind}" for column, kind in types.items()) + " }"] if types else []
    for number in range(draw.choice([0, 0, 1, 2])):
        predicates = ['matches = "a"', 'not_matches = "^t"', "at_most = 0", "at_least = 10", 'accepted = ["a"]', "is_null = true"]
        predicates += ['before = "2020-01-01"', 'after = "2030-01-01"', "shorter_than = 2", "longer_than = 50"]
        predicates += ['matches = "("'] if draw.random() < 0.1 else []
        lines += ["[[sources.rows.rules]]", f'name = "r{number}"', f"column = {name()}", draw.choice(predicates)]
    lines += ["[items]", 'source = "rows"', f"item_id = {good(0)}", "max_rejected_share = 1.0", f"order_by = {good(2)}"]
    lines += [f'title = {{ column = {good(1)}, pick = "{pick("title")}" }}', f"text = [{good(1)}]"]
    for what, which in (("category", 1), ("price", 3), ("image", 1), ("first_seen", 2)):
        if draw.random() < 0.5:
            lines.append(f'{what} = {{ column = {good(which)}, pick = "{pick(what)}" }}')
    lines += ["uppercase_ids = true"] if draw.random() < 0.2 else []
    if draw.random() < 0.6:
        lines += ["[interactions]", 'source = "rows"', f"user_id = {good(0)}", f"item_id = {good(0)}", "max_rejected_share = 1.0"]
        lines += ["sequences = true"] if draw.random() < 0.1 else [f"ts = {good(2)}"]
        lines += [f"weight = {good(3)}"] if draw.random() < 0.4 else []
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def main() -> None:
    """Fuzz and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--inputs", type=int, help="stop after so many inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    tally = fuzz(seconds=asked.minutes * 60, seed=asked.seed, inputs=asked.inputs)
    for shown in tally.shown:
        sys.stderr.write(shown + "\n")
    found = {"inputs": tally.ends.total(), "tracebacks": tally.ends["traceback"], "differences": tally.ends["difference"]}
    ends = dict(sorted(tally.ends.items()))
    sys.stdout.write(json.dumps(found | {"ends": ends}) + "\n" if asked.json else f"{found}, of {ends}\n")
    raise SystemExit(bool(tally.ends["traceback"] + tally.ends["difference"]))


if __name__ == "__main__":
    main()
