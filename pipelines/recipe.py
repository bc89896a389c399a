"""A recipe: everything that decides what a warehouse will contain, as frozen dataclasses read from one TOML file.

A recipe names sources, says how their columns become `items` and `interactions`, which rows are refused, which encoders and
tokenizer run, and which gates guard publication. An unknown key is an error, because a misspelt one would silently change a
published table. Nothing is read from the environment; nothing here touches the data (see `sources` and `ingest`).
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Literal

from sidlake.encoders.behaviour import BehaviourConfig
from sidlake.encoders.text import TextEncoderConfig
from sidlake.generative.config import GenerativeConfig
from sidlake.pipelines.parsing import parse_dataclass
from sidlake.quality.gates import Gate
from sidlake.tokenizers.errors import RecipeError

__all__ = [
    "Column",
    "EncodersConfig",
    "InteractionsConfig",
    "ItemsConfig",
    "Modality",
    "Recipe",
    "Rule",
    "SourceConfig",
    "SplitConfig",
    "TokenizerConfig",
    "digest_of",
    "load_recipe",
]

Target = Literal["items", "interactions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Rows of a source to refuse. Exactly one of the predicates is set; `name` is what `rejected_rows` will say.

    Attributes:
        column: the column that is looked at.
        matches: refuse where this regular expression (Rust syntax) is found in the value.
        at_most: refuse where the value is a number ≤ this.
        is_null: refuse where the value is null or an empty string.
        rejects: the targets that lose the row.
    """

    name: str
    column: str
    matches: str | None = None
    at_most: float | None = None
    is_null: bool = False
    rejects: tuple[Target, ...] = ("items", "interactions")

    def __post_init__(self) -> None:
        given = (self.matches is not None) + (self.at_most is not None) + self.is_null
        if given != 1:
            msg = f"rule {self.name}: {given} predicates given, needed exactly 1 of matches, at_most, is_null"
            raise RecipeError(msg)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """A file of rows. `path` is relative to the recipe's folder; rules are tried in order and the first that fits names the row."""

    path: str
    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """Where an item's value comes from when several rows speak of it.

    Attributes:
        column: the source's column.
        pick: ``only`` (one row per item expected), ``latest`` (the non-empty value of the newest row, ties to the greater value),
            ``median``, ``min`` or ``max``.
    """

    column: str
    pick: Literal["only", "latest", "median", "min", "max"] = "only"


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemsConfig:
    """How a source's rows become `items`.

    Attributes:
        source: name of the source.
        item_id: column of the identifier; numbers are spelled in decimal.
        uppercase_ids: spell identifiers in upper case (sources that write 85123a and 85123A for one item).
        title: the item's name.
        text: source columns (lists are joined by commas) that the text encoder reads after the title.
        order_by: timestamp column that ``latest`` goes by.
        max_rejected_share: above this share of refused rows the run fails before anything is published.
    """

    source: str
    item_id: str
    title: Column
    text: tuple[str, ...] = ()
    category: str | None = None
    price: Column | None = None
    image: str | None = None
    first_seen: Column | None = None
    order_by: str | None = None
    uppercase_ids: bool = False
    max_rejected_share: float = 0.1

    def __post_init__(self) -> None:
        picks = [self.title.pick, *(c.pick for c in (self.price, self.first_seen) if c)]
        if "latest" in picks and self.order_by is None:
            msg = "items: pick = 'latest' needs order_by, the timestamp column it goes by"
            raise RecipeError(msg)
        _check_share("items.max_rejected_share", self.max_rejected_share)

    @property
    def aggregated(self) -> bool:
        """Whether several rows of the source describe one item."""
        return self.title.pick != "only"


@dataclass(frozen=True, kw_only=True, slots=True)
class InteractionsConfig:
    """How a source's rows become `interactions`.

    Attributes:
        item_id: column of the item, or of the list of items when `sequences` is set.
        ts: timestamp column; absent only with `sequences`, where the position in the list stands in (second 0, 1, 2 … of 1970).
        sequences: each row is a user with the list of items in time order.
    """

    source: str
    user_id: str
    item_id: str
    ts: str | None = None
    weight: str | None = None
    event: str = "purchase"
    sequences: bool = False
    uppercase_ids: bool = False
    max_rejected_share: float = 0.1

    def __post_init__(self) -> None:
        if (self.ts is None) != self.sequences:
            msg = "interactions: exactly one of ts (a timestamp column) and sequences = true (lists in time order) is needed"
            raise RecipeError(msg)
        _check_share("interactions.max_rejected_share", self.max_rejected_share)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """What may be learned from and what is held out.

    Attributes:
        kind: ``time`` holds out the last `holdout_days`; ``leave_one_out`` holds out each user's last two events. Behaviour is
            learned from neither, in both kinds, so that neither sessions nor the trainer's test items leak into the SIDs.
        max_history: items of history that a session or a training window may hold.
        max_sessions: sessions measured; above it a seeded sample.
    """

    kind: Literal["time", "leave_one_out"] = "time"
    holdout_days: int = 30
    max_history: int = 20
    max_sessions: int = 20_000

    def __post_init__(self) -> None:
        if min(self.holdout_days, self.max_history, self.max_sessions) < 1:
            msg = f"split: holdout_days, max_history and max_sessions must be >= 1, got {self}"
            raise RecipeError(msg)


@dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """Share of a modality in the fused vector: its block is reduced to `dim` principal components and scaled to `weight`."""

    weight: float = 1.0
    dim: int = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodersConfig:
    """The encoders that run and how their vectors are fused; `behaviour` is left out for catalogues without interactions."""

    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    behaviour: BehaviourConfig | None = None
    fusion: dict[str, Modality] = field(default_factory=lambda: {"text": Modality()})
    whiten: bool = False

    def __post_init__(self) -> None:
        available = {"text"} | ({"behaviour"} if self.behaviour else set())
        if not self.fusion or not set(self.fusion) <= available:
            msg = f"encoders.fusion: modalities {sorted(self.fusion)} must be a non-empty subset of {sorted(available)}"
            raise RecipeError(msg)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """The quantizer. Without `widths` they follow the number of items (`residual_kmeans.default_widths`)."""

    kind: Literal["residual_kmeans"] = "residual_kmeans"
    widths: tuple[int, ...] | None = None
    max_iterations: int = 25
    max_fit_rows: int = 1_000_000
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One catalogue's pipeline. `folder` is where relative paths start; it is no part of the digest."""

    name: str
    sources: dict[str, SourceConfig]
    items: ItemsConfig
    interactions: InteractionsConfig | None = None
    split: SplitConfig = field(default_factory=SplitConfig)
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    gates: tuple[Gate, ...] = ()
    trainer: GenerativeConfig | None = None
    folder: str = "."

    def __post_init__(self) -> None:
        named = [self.items.source, *([self.interactions.source] if self.interactions else [])]
        unknown = sorted(set(named) - set(self.sources))
        if unknown:
            msg = f"recipe {self.name}: sources {unknown} are not among {sorted(self.sources)}"
            raise RecipeError(msg)
        if self.interactions is None and (self.encoders.behaviour or self.trainer):
            msg = f"recipe {self.name}: encoders.behaviour and trainer need an [interactions] section"
            raise RecipeError(msg)

    def source_path(self, source: str) -> Path:
        """Return the file of `source`."""
        return Path(self.folder) / self.sources[source].path


def load_recipe(path: str | Path) -> Recipe:
    """Return the recipe in the TOML file at `path`; `RecipeError` names the file, the key and what is allowed."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"recipe {path}: {error.strerror}; give the path of a TOML file, such as recipes/online_retail.toml"
        raise RecipeError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"recipe {path}: not TOML: {error}"
        raise RecipeError(msg) from error
    if "folder" in values:
        msg = f"recipe {path}: unknown key folder: paths start at the recipe's own folder"
        raise RecipeError(msg)
    try:
        return parse_dataclass(Recipe, values | {"folder": str(path.parent)})
    except (RecipeError, ValueError) as error:
        msg = f"recipe {path}: {error}"
        raise RecipeError(msg) from error


def digest_of(*parts: object) -> str:
    """Return the SHA-256, in hex, of dataclasses and JSON values: equal values give equal digests on any machine.

    >>> digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(_plain(parts), sort_keys=True).encode()).hexdigest()


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        msg = f"{name} must be between 0 and 1, got {value}"
        raise RecipeError(msg)
