"""A proposed recipe as TOML with comments: what was found, what was chosen, and what only the user can know."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from sidlake.pipelines.ingest.columns import toml_key
from sidlake.pipelines.starting.profiles import ColumnProfile, FileProfile
from sidlake.pipelines.starting.roles import EventRoles, ItemRoles, Roles
from sidlake.tokenizers.quantizers.residual_kmeans import default_widths

__all__ = ["open_questions", "recipe_text"]

_UNDECIDED = "CHOOSE"
"""No date's format: a recipe that says it is refused with an error that says how a format is written."""
_SHARE_BY_DEFAULT = 0.1
_DAYS_OF_A_TIME_SPLIT = 90
_PRINCIPAL_COMPONENTS = 64


def recipe_text(roles: Roles, folder: Path) -> str:
    """Return the recipe of `roles` for a file that will lie in `folder`, where its paths start."""
    sources = _source_names(roles)
    parts = [
        [
            "# Proposed from the files by: sidlake init. Check it by: sidlake validate (this file)",
            _pair("name", _name(roles)),
        ],
        *(_source(name, file, roles, folder) for file, name in sources),
        _items(roles, dict(_named(sources))),
        _events(roles.events, roles, dict(_named(sources))) if roles.events else _no_events(),
        _split(roles.events) if roles.events else [],
        _encoders(roles),
        _tokenizer(roles.items),
        _ending(roles),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def open_questions(roles: Roles) -> list[str]:
    """Return what the user has to decide before the recipe can run."""
    return [
        f"{column.name}: {' or '.join(column.formats)}? Each reads all its dates"
        for column in _columns_read(roles)
        if len(column.formats) > 1
    ]


def _source_names(roles: Roles) -> list[tuple[FileProfile, str]]:
    files = [roles.items.file]
    if roles.events and roles.events.file is not roles.items.file:
        files.append(roles.events.file)
    called = [file.table or (Path.cwd() / file.path).name.split(".")[0] for file in files]
    names = [re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_") or "source" for name in called]
    if len(set(names)) < len(names):
        names = ["items", "events"]
    return list(zip(files, names, strict=True))


def _named(sources: Sequence[tuple[FileProfile, str]]) -> Iterator[tuple[str, str]]:
    return ((file.place, name) for file, name in sources)


def _name(roles: Roles) -> str:
    return _source_names(roles)[0][1].casefold()


def _string(value: str) -> str:
    """Return a TOML string.

    >>> _string("café")
    '"café"'
    """
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _pair(key: str, value: str, comment: str = "") -> str:
    return _line(f"{key} = {_string(value)}", comment)


def _line(text: str, comment: str) -> str:
    return f"{text}  # {comment}" if comment else text


def _example(column: ColumnProfile) -> str:
    return _string(str(column.values[0])[:40]) if len(column.values) else "no text"


def _source(name: str, file: FileProfile, roles: Roles, folder: Path) -> list[str]:
    place = _place(file.path, folder)
    looked_at = f"{file.rows:,} rows" if file.num_files == 1 else f"{file.num_files} files, the first of {file.rows:,} rows"
    lines = [f"[sources.{toml_key(name)}]", _pair("path", place, looked_at)]
    if file.source.query:
        is_plain = "'" not in file.source.query and file.source.query.isprintable()
        lines.append(f"query = '{file.source.query}'" if is_plain else _pair("query", file.source.query))
    if file.source.encoding:
        lines.append(
            _pair(
                "encoding", file.source.encoding, "it is not UTF-8; look whether accents come out right, or name another code page"
            )
        )
    if file.source.delimiter:
        lines.append(_pair("delimiter", file.source.delimiter))
    lines += [f"types.{toml_key(column.name)} = {kind}" for column, kind in _types(file, roles)]
    for column in _columns_read(roles):
        if len(column.formats) > 1 and column in file.columns:
            lines += [
                f"# Each of these reads all dates of {_string(column.name)}, such as {_example(column)}: put the right one above."
            ]
            lines += [f'#   "{form}"' for form in column.formats]
    return lines


def _place(path: Path, folder: Path) -> str:
    """Return a path from the recipe's folder, or from the root where that is further up than two folders."""
    place = Path(os.path.relpath(path, folder))  # links stay what they are called
    return (Path.cwd() / path if place.parts[:3] == ("..",) * 3 else place).as_posix()


def _columns_read(roles: Roles) -> list[ColumnProfile]:
    items, events = roles.items, roles.events
    found = [items.item_id, items.price, items.first_seen, items.time if items.several else None]
    found += [events.user_id, events.item_id, events.ts, events.weight] if events else []
    return list({id(column): column for column in found if column}.values())


def _types(file: FileProfile, roles: Roles) -> Iterator[tuple[ColumnProfile, str]]:
    """Return the types that the columns which the recipe reads cannot do without."""
    identifiers = [roles.items.item_id, *([roles.events.user_id, roles.events.item_id] if roles.events else [])]
    for column in _columns_read(roles):
        if column not in file.columns:
            continue
        if column.formats:
            form = column.formats[0] if len(column.formats) == 1 else _UNDECIDED
            yield column, f"{{ format = {_string(form)} }}"
        elif column.whole and any(column is one for one in identifiers):
            yield column, '"integer"  # they are written as decimals, such as 12.0'
        elif column.decimal:
            yield column, f"{{ decimal = {_string(column.decimal)} }}"


def _items(roles: Roles, names: dict[str, str]) -> list[str]:
    items = roles.items
    id_column = items.item_id
    lines = [f"# {doubt}" for key, doubt in roles.doubts.items() if key == "items_file"]
    lines += ["[items]", _pair("source", names[items.file.place])]
    lines += [f"# {roles.doubts['item_id']}"] if "item_id" in roles.doubts else []
    lines.append(_pair("item_id", id_column.name, f"{id_column.distinct:,} different, such as {_example(id_column)}"))
    lines += _spelling(id_column)
    order = items.time if items.several else None
    lines += [_pair("order_by", order.name)] if order else []
    lines.append(
        f"title = {_described(items.title, items, 'latest' if order else 'most_common')}  # such as {_example(items.title)}"
    )
    lines += [f"text = [{', '.join(_string(one.name) for one in items.text)}]  # read after the title"] if items.text else []
    several = "latest" if order else "most_common"
    optional = (
        ("category", items.category, several),
        ("price", items.price, "median"),
        ("image", items.image, several),
        ("first_seen", items.first_seen, "min"),
    )
    lines += [f"{key} = {_described(column, items, pick)}" for key, column, pick in optional if column]
    missing = 1 - min(id_column.filled, items.title.filled) / max(items.file.rows, 1)
    return [
        *lines,
        *_share(
            missing if not items.several else 1 - id_column.filled / max(items.file.rows, 1),
            "rows without an identifier or a title",
        ),
    ]


def _spelling(column: ColumnProfile) -> list[str]:
    folded = column.values.str.to_uppercase().n_unique()
    if folded == len(column.values):
        return []
    return [f"# uppercase_ids = true  # {len(column.values) - folded:,} differ in upper and lower case only: one item each?"]


def _described(column: ColumnProfile, items: ItemRoles, pick: str) -> str:
    if not items.several:
        return f"{{ column = {_string(column.name)} }}"
    return f"{{ column = {_string(column.name)}, pick = {_string(pick)} }}"


def _share(share: float, what: str) -> list[str]:
    """Return the share of refused rows to allow, half as much again as the files need, where that is more than is allowed unasked.

    Each new file is judged by itself, and one day is not like another: of a shop with 16 % in a month, days had 21 %.
    """
    allowed = min(1.0, math.ceil(share * 150 + 2) / 100)
    if allowed <= _SHARE_BY_DEFAULT:
        return []
    return [f"max_rejected_share = {allowed}  # {share:.1%} of these rows will be refused: {what}"]


def _events(events: EventRoles, roles: Roles, names: dict[str, str]) -> list[str]:
    lines = ["[interactions]", _pair("source", names[events.file.place])]
    chosen = (("user_id", events.user_id), ("item_id", events.item_id), ("ts", events.ts))
    for key, column in chosen:
        doubt = roles.doubts.get(key) if key != "item_id" else None
        lines += [f"# {doubt}"] if doubt else []
        span = f"{column.first} to {column.last}" if column.first and len(column.formats) < 2 else ""
        lines.append(_pair(key, column.name, span if key == "ts" else ""))
    if events.weight:
        lines.append(_pair("weight", events.weight.name, "rows whose weight is not above 0 are refused"))
    lines.append('event = "purchase"  # what a row records')
    return [*lines, *_share(_refused(events, roles.items), "no user, item or time, a weight that is not above 0, an unknown item")]


def _refused(events: EventRoles, items: ItemRoles) -> float:
    """Return the share of events that will be refused, at most: a row may have several reasons."""
    rows = max(events.file.rows, 1)
    needed = [events.user_id, events.item_id, events.ts, *([events.weight] if events.weight else [])]
    lost = sum(1 - column.filled / rows for column in needed) + (events.weight.at_most_zero / rows if events.weight else 0)
    known = float(events.item_id.values.is_in(items.item_id.values.implode()).mean() or 0)  # type: ignore[arg-type]
    return min(1.0, lost + 1 - known)


def _no_events() -> list[str]:
    return ["# No file holds events (a user, an item and a time in each row), so there is no behaviour and no trainer."]


def _split(events: EventRoles) -> list[str]:
    if events.ts.days >= _DAYS_OF_A_TIME_SPLIT:
        return ["[split]", 'kind = "time"  # the last days are held out and asked for', "holdout_days = 30"]
    return [
        "[split]",
        'kind = "leave_one_out"  # each user\'s last two events are held out; the events span too few days for a split by time',
    ]


def _encoders(roles: Roles) -> list[str]:
    dim = min(_PRINCIPAL_COMPONENTS, 2 ** max(2, (max(roles.items.item_id.distinct, 1) // 4).bit_length() - 1))
    lines = ["[encoders.text]", '# model = "…"  # a folder or a name; without it the bundled model for English']
    lines += ["", "[encoders.image]"] if roles.items.image else []
    lines += ["", "[encoders.behaviour]  # what was bought together", f"dim = {dim}"] if roles.events else []
    named = [("text", 1.0), *([("image", 0.7)] if roles.items.image else []), *([("behaviour", 0.7)] if roles.events else [])]
    for modality, weight in named:
        lines += ["", f"[encoders.fusion.{modality}]", f"weight = {weight}", f"dim = {dim}"]
    return lines


def _tokenizer(items: ItemRoles) -> list[str]:
    count = max(items.item_id.distinct, 1)
    return ["[tokenizer]", f"widths = {list(default_widths(count))}  # codes of each level, for {count:,} items"]


def _ending(roles: Roles) -> list[str]:
    lines = ["[[gates]]", 'metric = "unique_share"', "minimum = 1.0"]
    lines += ["", "# [trainer]  # a recommender on the SIDs", '# kind = "decoder"'] if roles.events else []
    lines += [f"# Not used: {_string(file.place)}" for file in roles.unused]
    return lines
