"""Which file holds items and which events, and which column is for what: by names, values, and what files share.

What values decide goes before what names suggest: the events' item column and the items' identifier are the pair that shares most
values. A choice that neither decides is noted with both names, for the recipe's comments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sidlake.errors import RecipeError
from sidlake.pipelines.starting.profiles import ColumnProfile, FileProfile

__all__ = ["EventRoles", "ItemRoles", "Roles", "roles_of"]

_ITEM = r"item|sku|asin|isbn|ean|gtin|product|stock|article|movie|book|track|song|recipe|business"
_ITEM_NAMES = re.compile(rf"^(({_ITEM})_?(id|code|key|no|nr|number|ref)?|parent_?asin|id|code|key|ref)$")
_USER_NAMES = re.compile(
    r"^((user|customer|client|visitor|member|reviewer|buyer|shopper|account|kunde|session|cust)_?(id|code|no|nr|number|key)?|uid|email)$"
)
_TITLE_NAMES = (
    "title",
    "name",
    "product_name",
    "item_name",
    "product_title",
    "product",
    "item",
    "label",
    "headline",
    "description",
)
_TEXT_WORDS = (
    "description",
    "keyword",
    "brand",
    "tag",
    "feature",
    "summary",
    "text",
    "about",
    "detail",
    "bullet",
    "author",
    "colour",
    "color",
)
_CATEGORY_WORDS = ("categor", "genre", "department", "section", "taxonomy")
_IMAGE_WORDS = ("image", "img", "picture", "photo", "thumbnail")
_PRICE_WORDS = ("price", "msrp", "cost")
_WEIGHT_WORDS = ("quantity", "qty", "weight", "count", "units")
_TIME_WORDS = ("timestamp", "time", "date", "ts", "at")


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemRoles:
    """The columns of the file of items; `several` where rows outnumber items."""

    file: FileProfile
    item_id: ColumnProfile
    title: ColumnProfile
    text: tuple[ColumnProfile, ...] = ()
    category: ColumnProfile | None = None
    price: ColumnProfile | None = None
    image: ColumnProfile | None = None
    time: ColumnProfile | None = None
    first_seen: ColumnProfile | None = None

    @property
    def several(self) -> bool:
        """Whether several rows describe an item."""
        return self.item_id.distinct < self.item_id.filled


@dataclass(frozen=True, kw_only=True, slots=True)
class EventRoles:
    """The columns of the file of events."""

    file: FileProfile
    user_id: ColumnProfile
    item_id: ColumnProfile
    ts: ColumnProfile
    weight: ColumnProfile | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Roles:
    """What files and columns are for, and by role what could as well have been chosen: a sentence each."""

    items: ItemRoles
    events: EventRoles | None
    doubts: dict[str, str] = field(default_factory=dict)
    unused: tuple[FileProfile, ...] = ()


def roles_of(files: Sequence[FileProfile]) -> Roles:
    """Return what `files` and their columns are for.

    Raises:
        RecipeError: no file has a column of identifiers and one of titles.
    """
    doubts: dict[str, str] = {}
    filled = [one for one in files if one.rows]
    events_file = next(iter(sorted(filter(_may_be_events, filled), key=lambda one: -one.rows)), None)
    items_file = _items_file(filled, doubts)
    if items_file is None:
        shown = "; ".join(f"{one.place} has {[column.name for column in one.columns][:20]}" for one in files)
        msg = (
            "no file has both identifiers of items and names or titles that a text encoder could read: "
            f"{shown or 'no file was given'}; name the files, or rename their columns item_id and title"
        )
        raise RecipeError(msg)
    item_id = _item_id(items_file, events_file, doubts)
    items = _item_roles(items_file, item_id, is_events=events_file is items_file)
    events = _event_roles(events_file, items, doubts) if events_file else None
    used = (items_file, events_file if events else None)
    return Roles(items=items, events=events, doubts=doubts, unused=tuple(one for one in files if one not in used))


def _plain(name: str) -> str:
    """Return a column's name in lower case with its words apart.

    >>> _plain("StockCode"), _plain("Customer ID"), _plain("reviewerID")
    ('stock_code', 'customer_id', 'reviewer_id')
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return re.sub(r"[^0-9a-zà-ÿ]+", "_", apart.casefold()).strip("_")


def _has(column: ColumnProfile, words: Sequence[str]) -> bool:
    return any(word in _plain(column.name) for word in words)


def _identifies(column: ColumnProfile) -> bool:
    return column.kind in ("text", "integer", "number") and not column.formats and (column.kind != "number" or column.whole)


def _users(file: FileProfile) -> list[ColumnProfile]:
    return [one for one in file.columns if _identifies(one) and _USER_NAMES.match(_plain(one.name)) and one.filled]


def _times(file: FileProfile) -> list[ColumnProfile]:
    times = [one for one in file.columns if one.is_time and one.filled]
    return sorted(times, key=lambda one: not any(word in _plain(one.name).split("_") for word in _TIME_WORDS))


def _named_items(file: FileProfile) -> list[ColumnProfile]:
    named = [one for one in file.columns if _identifies(one) and _ITEM_NAMES.match(_plain(one.name)) and one.filled]
    is_id = re.compile(r"(^|_)(id|code|key|sku|asin|no|nr|number)$")
    return sorted(named, key=lambda one: not is_id.search(_plain(one.name)))


def _may_be_events(file: FileProfile) -> bool:
    return bool(_users(file) and _times(file) and _named_items(file))


def _items_file(files: Sequence[FileProfile], doubts: dict[str, str]) -> FileProfile | None:
    able = [one for one in files if _ids(one) and _title(one, _ids(one)[0])]
    able.sort(key=lambda one: (_may_be_events(one), -one.rows))
    if len(able) > 1 and not _may_be_events(able[1]):
        doubts["items_file"] = f"{able[1].place} holds names too: is the catalogue there?"
    return able[0] if able else None


def _ids(file: FileProfile) -> list[ColumnProfile]:
    """Return the columns that may identify items, the likeliest first: by name, then those with a value of its own in each row."""
    named = _named_items(file)
    users = {one.name for one in _users(file)}
    others = [one for one in file.columns if _identifies(one) and one.unique and one.length < 40 and one.name not in users]
    others = [one for one in others if not bool(one.values.head(100).str.contains(r"\s").any())]
    unique = [one for one in named if one.unique]
    return list({one.name: one for one in (*unique, *named, *others)}.values())


def _item_id(file: FileProfile, events: FileProfile | None, doubts: dict[str, str]) -> ColumnProfile:
    candidates = _ids(file)
    if events is None or events is file:
        others = [one.name for one in candidates[1:] if one.unique == candidates[0].unique]
        if others:
            doubts["item_id"] = (
                f"{candidates[0].name!r} or {others[0]!r}? Both may identify items; releases keep what is chosen here"
            )
        return candidates[0]
    shares = {one.name: max(_shared(other, one) for other in _named_items(events)) for one in candidates}
    best = max(candidates, key=lambda one: shares[one.name])
    rival = next((one.name for one in candidates if one is not best and shares[one.name] == shares[best.name]), None)
    if rival and shares[best.name]:
        doubts["item_id"] = f"{best.name!r} or {rival!r}? The events' items are in both"
    elif not shares[best.name]:
        doubts["item_id"] = (
            f"no identifier of {events.table or events.path.name} is in {best.name!r}: are these files of one catalogue?"
        )
    return best


def _shared(events: ColumnProfile, items: ColumnProfile) -> float:
    """Return the share of the events' different items that are identifiers of the catalogue."""
    return float(events.values.is_in(items.values.implode()).mean() or 0)  # type: ignore[arg-type]


def _title(file: FileProfile, item_id: ColumnProfile) -> ColumnProfile | None:
    texts = [one for one in file.columns if one.kind == "text" and not one.formats and one is not item_id and one.filled]
    texts = [one for one in texts if not _USER_NAMES.match(_plain(one.name))]
    named = [one for name in _TITLE_NAMES for one in texts if _plain(one.name) == name]
    ending = [one for one in texts if _plain(one.name).split("_")[-1] in ("title", "name", "description")]
    return next(iter([*named, *ending]), None)


def _item_roles(file: FileProfile, item_id: ColumnProfile, *, is_events: bool) -> ItemRoles:
    title = _title(file, item_id) or next(one for one in file.columns if one.kind == "text" and one is not item_id)
    left = [one for one in file.columns if one is not item_id and one is not title and one.filled]
    category = _first(left, _CATEGORY_WORDS, ("text", "list"))
    image = next((one for one in left if _is_image(one)), None)
    texts = [one for one in left if one.kind in ("text", "list") and not one.formats and one is not image]
    times = _times(file)
    return ItemRoles(
        file=file,
        item_id=item_id,
        title=title,
        text=tuple(one for one in texts if one is category or _has(one, _TEXT_WORDS)),
        category=category,
        price=_first(left, _PRICE_WORDS, ("number", "integer")),
        image=image,
        time=times[0] if times else None,
        first_seen=times[0] if times and is_events else None,
    )


def _first(columns: Sequence[ColumnProfile], words: Sequence[str], kinds: Sequence[str]) -> ColumnProfile | None:
    return next((one for one in columns if one.kind in kinds and not one.formats and _has(one, words)), None)


def _is_image(column: ColumnProfile) -> bool:
    if column.kind in ("bytes", "object"):
        return _has(column, _IMAGE_WORDS)
    return column.kind == "text" and bool(column.values.head(100).str.contains(r"(?i)\.(png|jpe?g|webp|gif)(\?.*)?$").all())


def _event_roles(file: FileProfile, items: ItemRoles, doubts: dict[str, str]) -> EventRoles | None:
    users, times = _users(file), _times(file)
    named = _named_items(file)
    item_id = items.item_id if file is items.file else max(named, key=lambda one: _shared(one, items.item_id))
    if len(users) > 1:
        doubts["user_id"] = f"{users[0].name!r} or {users[1].name!r}? A user's events are one sequence"
    if len(times) > 1:
        doubts["ts"] = f"{times[0].name!r} or {times[1].name!r}? When a user acted is meant"
    weight = _first([one for one in file.columns if one is not item_id], _WEIGHT_WORDS, ("number", "integer"))
    return EventRoles(file=file, user_id=users[0], item_id=item_id, ts=times[0], weight=weight)
