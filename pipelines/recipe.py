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
from typing import Any, Literal, get_args

from sidlake.errors import RecipeError
from sidlake.generative.config import DecoderConfig, GenerativeConfig
from sidlake.memory import parse_size
from sidlake.pipelines.settings.encoders import EncodersConfig, Modality
from sidlake.pipelines.settings.methods import method_file
from sidlake.pipelines.settings.parsing import parse_dataclass
from sidlake.pipelines.settings.quality import QualityConfig
from sidlake.pipelines.settings.retirement import RetirementConfig
from sidlake.pipelines.settings.sources import Column, ColumnType, Pick, Rule, SourceConfig, check_instant
from sidlake.quality.drift import DriftConfig
from sidlake.quality.gates import Gate
from sidlake.tokenizers.quantizers.residual_kmeans import default_widths
from sidlake.tokenizers.registry import KINDS, tokenizer_class

__all__ = [
    "Column",
    "ColumnType",
    "EncodersConfig",
    "InteractionsConfig",
    "ItemsConfig",
    "Method",
    "Modality",
    "Recipe",
    "Rule",
    "SourceConfig",
    "SplitConfig",
    "TokenizerConfig",
    "digest_of",
    "load_recipe",
    "plain",
]

_UNFIT = {"title": ("median",), "category": ("median", "min", "max"), "image": ("median", "min", "max")}
"""Picks that make no sense of text, lists and pictures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemsConfig:
    """How a source's rows become `items`.

    Attributes:
        source: name of the source.
        item_id: column of the identifier; numbers are spelled in decimal.
        uppercase_ids: spell identifiers in upper case (sources that write 85123a and 85123A for one item), on every side: items,
            events, vectors and imported SIDs.
        title: the item's name; its pick holds for the text too.
        text: source columns (lists are joined by commas) that the text encoder reads after the title.
        category: column of the category path: a list, or text between the separators that the source's `types` names.
        image: column of the picture: its bytes, its path or address, or Hugging Face's {bytes, path}.
        order_by: column of times or numbers that ``latest`` and ``first`` go by.
        max_rejected_share: above this share of refused rows the run fails before anything is published.
        price: column of the price, a number; it is kept beside the item and no encoder reads it.
        first_seen: column of the time since when an item is there; without it, its first event, or the first release that has it.
    """

    source: str
    item_id: str
    title: Column
    text: tuple[str, ...] = ()
    category: Column | None = None
    price: Column | None = None
    image: Column | None = None
    first_seen: Column | None = None
    order_by: str | None = None
    uppercase_ids: bool = False
    max_rejected_share: float = 0.1

    def __post_init__(self) -> None:
        described = {name: getattr(self, name) for name in ("title", "category", "price", "image", "first_seen")}
        picks = {name: column.pick for name, column in described.items() if column}
        if "latest" in picks.values() and self.order_by is None:
            msg = "items: pick = 'latest' needs order_by, the column of times or numbers it goes by"
            raise RecipeError(msg)
        unfit = [name for name, pick in picks.items() if pick in _UNFIT.get(name, ())]
        if unfit:
            allowed = [pick for pick in get_args(Pick) if pick not in _UNFIT[unfit[0]]]
            msg = f"items.{unfit[0]}: pick = {picks[unfit[0]]!r} is for numbers and times; allowed here: {', '.join(allowed)}"
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
        earliest: an event before this time is refused as implausible: zeros and broken clocks end in 1970, or in the year 1.
        source: name of the source.
        user_id: column of the user.
        weight: column of a number that says how much an event counts; 1 each without it, and events of one user, item and time
            are added up.
        event: what kind of events these are; it is written beside each.
        uppercase_ids: spell identifiers of items in upper case, as `items.uppercase_ids` does.
        max_rejected_share: above this share of refused rows the run fails before anything is published.
    """

    source: str
    user_id: str
    item_id: str
    ts: str | None = None
    weight: str | None = None
    event: str = "purchase"
    sequences: bool = False
    uppercase_ids: bool = False
    earliest: str = "1980-01-01"
    max_rejected_share: float = 0.1

    def __post_init__(self) -> None:
        check_instant("interactions.earliest", self.earliest)
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
        pair_window: two training events of a user at most so many positions apart make a co-purchase pair.
        holdout_days: days before the newest event that ``time`` holds out.
    """

    kind: Literal["time", "leave_one_out"] = "time"
    holdout_days: int = 30
    max_history: int = 20
    max_sessions: int = 20_000
    pair_window: int = 5

    def __post_init__(self) -> None:
        if min(self.holdout_days, self.max_history, self.max_sessions, self.pair_window) < 1:
            msg = f"split: holdout_days, max_history, max_sessions and pair_window must be >= 1, got {self}"
            raise RecipeError(msg)


Uniqueness = Literal["reassign", "append", "sinkhorn", "sinkhorn_groups", "optimal", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """The tokenizer and how its codes are made unique.

    Attributes:
        kind: name in `sidlake.tokenizers.registry`.
        widths: codes per level; without them they follow the number of items (`residual_kmeans.default_widths`).
        max_fit_rows: items to fit on at most; above it a seeded sample.
        options: the kind's own settings: the other fields of its config class.
        uniqueness: strategy of `sidlake.tokenizers.uniqueness.strategies`; ``none`` leaves collisions and cannot be published.
        digits: width of the level that ``append`` adds.
        align: name the codes of a new generation so that as many items as possible keep theirs.
        warm_start: start the fit of a new generation from the SIDs of the one before; the first one starts cold.
        seed: decides all that a fit leaves to chance: samples, starts, batches.
        device: where a fit and the search of codes run; ``auto`` takes a GPU where there is one.
    """

    kind: str = "residual_kmeans"
    widths: tuple[int, ...] | None = None
    max_fit_rows: int = 1_000_000
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    uniqueness: Uniqueness = "reassign"
    digits: int = 256
    align: bool = True
    warm_start: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            msg = f"tokenizer.kind must be one of {sorted(KINDS)}, got {self.kind!r}"
            raise RecipeError(msg)
        if self.warm_start and not tokenizer_class(self.kind).warm_starts:
            able = [kind for kind in sorted(KINDS) if tokenizer_class(kind).warm_starts]
            msg = f"tokenizer.warm_start: kind {self.kind} cannot start from codes of the generation before; {', '.join(able)} can"
            raise RecipeError(msg)
        own = {"widths", "seed", "max_fit_rows", "device"} & set(self.options)
        if own:
            msg = f"tokenizer.options: {sorted(own)} belong to [tokenizer] itself"
            raise RecipeError(msg)

    def settings(self, num_items: int, *, device: str) -> Any:  # noqa: ANN401  each kind has its own class
        """Return the kind's config for `num_items` items; `RecipeError` for an option it does not have."""
        common = {
            "widths": list(default_widths(num_items) if self.widths is None else self.widths),
            "seed": self.seed,
            "max_fit_rows": self.max_fit_rows,
        }
        kind = tokenizer_class(self.kind)
        try:
            return parse_dataclass(kind.config_type, {**common, **self.options, "device": device}, path="tokenizer.options")
        except ValueError as error:
            msg = f"tokenizer {self.kind}: {error}"
            raise RecipeError(msg) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """Where a recipe's encoders and tokenizer come from: a published system, and where this differs from its paper, and why.

    Attributes:
        name: what the method is called.
        source: the published system or paper.
        deviates: where this differs from it, and why, a sentence each.
    """

    name: str
    source: str
    deviates: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One catalogue's pipeline.

    Attributes:
        name: of the catalogue; `sidlake compare` keeps its results under it.
        sources: where the rows are, by names that `items` and `interactions` use.
        items: how rows become items.
        interactions: how rows become events of users; left out for a catalogue without any.
        split: what may be learned from and what is held out.
        encoders: which encoders run and how their vectors become the one that is quantized.
        tokenizer: how vectors become semantic IDs.
        gates: limits of metrics that guard publication, beside those of every recipe.
        quality: how much of a large catalogue is measured.
        trainer: the recommender that a retrain trains on the release; none without it.
        drift: limits beyond which a new generation is advised.
        retirement: which items leave the catalogue.
        memory: what a run may take of the machine's memory, such as 4GiB; half of it without. No result depends on it, and a step
            that needs more is refused before it starts.
        method: path of a method's file, ``methods/tiger.toml``, whose encoders and tokenizer hold where the recipe says nothing.
        folder: the recipe's own, where relative paths start; no key, and no part of the digest.
    """

    name: str
    sources: dict[str, SourceConfig]
    items: ItemsConfig
    interactions: InteractionsConfig | None = None
    split: SplitConfig = field(default_factory=SplitConfig)
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    gates: tuple[Gate, ...] = ()
    quality: QualityConfig = field(default_factory=QualityConfig)
    trainer: DecoderConfig | GenerativeConfig | None = None
    drift: DriftConfig = field(default_factory=DriftConfig)
    retirement: RetirementConfig = field(default_factory=RetirementConfig)
    memory: str | None = None
    method: Method | None = None
    folder: str = "."

    def __post_init__(self) -> None:
        named = [self.items.source, *([self.interactions.source] if self.interactions else [])]
        unknown = sorted(set(named) - set(self.sources))
        if unknown:
            msg = f"recipe {self.name}: sources {unknown} are not among {sorted(self.sources)}"
            raise RecipeError(msg)
        if self.encoders.image and not self.items.image:
            msg = f"recipe {self.name}: encoders.image needs items.image, the column that holds or names the pictures"
            raise RecipeError(msg)
        learns_pairs = self.encoders.fuse.kind == "contrastive"
        if self.interactions is None and (self.encoders.behaviour or self.trainer or learns_pairs):
            needy = "encoders.behaviour, trainer and encoders.fuse of kind 'contrastive'"
            msg = f"recipe {self.name}: {needy} need an [interactions] section"
            raise RecipeError(msg)
        try:
            _ = self.memory_limit
        except ValueError as error:
            raise RecipeError(f"memory: {error}") from error

    @property
    def memory_limit(self) -> int | None:
        """The bytes that `memory` says; None where it says nothing."""
        return None if self.memory is None else parse_size(self.memory)

    def source_path(self, source: str) -> Path:
        """Return the file of `source`."""
        return Path(self.folder) / self.sources[source].path

    def source_place(self, source: str) -> str:
        """Return the path of `source`, or what it says in place of one: an address, a variable that holds one."""
        path = self.sources[source].path
        return path if "://" in path or path.startswith("${") else str(self.source_path(source))


def load_recipe(path: str | Path, *, method: str | Path | None = None) -> Recipe:
    """Return the recipe in the TOML file at `path`; `RecipeError` names the file, the key and what is allowed.

    A recipe may say ``method = "methods/tiger.toml"``: its encoders and tokenizer are then those of that file, but for keys that it
    sets itself; where no such file lies in its folder, it is the method of that name that is installed with sidlake. With the
    argument `method` (a path that starts anywhere) the method's keys win instead, as a comparison needs it; what a method leaves
    open, such as the text model or the widths, stays the recipe's.
    """
    path = Path(path)
    values = _read_toml(path)
    for key in ("folder", "source", "deviates"):
        if key in values:
            why = "paths start at the recipe's own folder" if key == "folder" else "it belongs to a method"
            raise RecipeError(f"recipe {path}: unknown key {key}: {why}")
    named = values.pop("method", None)
    if method is not None:
        values = _under(values, _read_method(Path(method)))
    elif named is not None:
        values = _over(values, _read_method(method_file(path.parent, str(named))))
    try:
        return parse_dataclass(Recipe, values | {"folder": str(path.parent)})
    except (RecipeError, ValueError) as error:
        where = f" with method {method or named}" if method or named else ""
        msg = f"recipe {path}{where}: {error}"
        raise RecipeError(msg) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows begin a file with a byte-order mark
    except OSError as error:
        msg = f"recipe {path}: {error.strerror}; name a TOML file by --recipe, or have one proposed: sidlake init FILES…"
        raise RecipeError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"recipe {path}: not TOML: {error}"
        raise RecipeError(msg) from error


_OF_METHODS = ("name", "source", "deviates", "encoders", "tokenizer")


def _read_method(path: Path) -> dict[str, Any]:
    values = _read_toml(path)
    unknown = sorted(set(values) - set(_OF_METHODS))
    if unknown:
        msg = f"method {path}: unknown key {unknown[0]}; allowed here: {', '.join(_OF_METHODS)}"
        raise RecipeError(msg)
    return values


def _under(recipe: dict[str, Any], method: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe with the method's encoders and tokenizer: how things are fused and quantized is all the method's."""
    encoders = {name: value for name, value in recipe.get("encoders", {}).items() if name not in ("fusion", "fuse")}
    tokenizer = {name: value for name, value in recipe.get("tokenizer", {}).items() if name in ("widths", "seed", "device")}
    return _with_method(recipe, method, encoders | method.get("encoders", {}), tokenizer | method.get("tokenizer", {}))


def _over(recipe: dict[str, Any], method: dict[str, Any]) -> dict[str, Any]:
    """Return the method's encoders and tokenizer with the recipe's own keys over them."""
    encoders = method.get("encoders", {}) | recipe.get("encoders", {})
    return _with_method(recipe, method, encoders, method.get("tokenizer", {}) | recipe.get("tokenizer", {}))


def _with_method(
    recipe: dict[str, Any], method: dict[str, Any], encoders: dict[str, Any], tokenizer: dict[str, Any]
) -> dict[str, Any]:
    about = {key: method[key] for key in ("name", "source", "deviates") if key in method}
    return recipe | {"encoders": encoders, "tokenizer": tokenizer, "method": about}


def digest_of(*parts: object) -> str:
    """Return the SHA-256, in hex, of dataclasses and JSON values: equal values give equal digests on any machine.

    >>> digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(plain(parts), sort_keys=True).encode()).hexdigest()


def plain(value: object) -> object:
    """Return dataclasses and mappings as JSON values: dicts, lists, strings, numbers."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        msg = f"{name} must be between 0 and 1, got {value}"
        raise RecipeError(msg)
