"""What steps read and write, by name: tables of a release, vectors of a modality, artifacts of a generation.

A product's *stamp* is what identifies the one that a run has in force: the version of its table, the id of its encoder, the hash of
its codebooks. Digests of steps are made of stamps. The names are those of Dagster's assets.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

from sidlake.pipelines.recipe import Recipe
from sidlake.pipelines.run_state import RunState

__all__ = ["PRODUCTS", "RELEASED", "VECTORS", "Product", "stamp"]


def _always(recipe: Recipe) -> bool:
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """One product.

    Attributes:
        about: one sentence for people.
        table: the warehouse's table that holds it, None for artifacts. `shared` says that it is one of several kinds of rows there.
        optional: there may be none without anything being amiss.
        modality: key of `RunState.encoders` whose encoder made it.
        facts: fields of `RunState` that belong to it.
        made: whether a recipe asks for it.
    """

    about: str
    table: str | None = None
    modality: str | None = None
    shared: bool = False
    optional: bool = False
    facts: tuple[str, ...] = ()
    made: Callable[[Recipe], bool] = _always

    def is_in(self, state: RunState) -> bool:
        """Return whether `state` has one in force."""
        has_vectors = self.modality is None or self.modality in state.encoders
        return self.optional or (has_vectors and (self.table is None or self.table in state.tables))

    def carry_over(self, base: RunState, state: RunState) -> None:
        """Put the one that `base` has in force into `state`, which has none where `base` has none."""
        if self.table is not None and not self.shared:
            _copy(base.tables, state.tables, self.table)
        if self.modality is not None:
            _copy(base.encoders, state.encoders, self.modality)
        for fact in self.facts:
            setattr(state, fact, copy(getattr(base, fact)))

    def drop(self, state: RunState) -> None:
        """Take it out of `state`: the recipe does not ask for it any more."""
        if self.table is not None and not self.shared:
            state.tables.pop(self.table, None)
        if self.modality is not None:
            state.encoders.pop(self.modality, None)


def _copy(source: dict[str, Any], target: dict[str, Any], key: str) -> None:
    if key in source:
        target[key] = source[key]
    else:
        target.pop(key, None)


def _vectors(about: str, modality: str, made: Callable[[Recipe], bool]) -> Product:
    return Product(about=about, table="item_embeddings", modality=modality, shared=True, made=made)


PRODUCTS: dict[str, Product] = {
    "items": Product(
        about="The catalogue: one row per item, with the text that is embedded and a hash of its content.",
        table="items",
        facts=("inputs",),
    ),
    "interactions": Product(
        about="Who did what with which item and when, partitioned by day; absent for a catalogue without events.",
        table="interactions",
        made=lambda recipe: recipe.interactions is not None,
    ),
    "rejected_rows": Product(
        about="Input rows that broke a rule of the recipe, with the rule's name and the value.", table="rejected_rows"
    ),
    "text_embeddings": _vectors(
        "Vectors of the items' text; only items whose content or encoder is new are embedded.",
        "text",
        lambda recipe: "text" in recipe.encoders.fusion,
    ),
    "image_embeddings": _vectors(
        "Vectors of the items' pictures, where the recipe asks for them; unreadable ones go to `rejected_rows`.",
        "image",
        lambda recipe: recipe.encoders.image is not None,
    ),
    "precomputed_embeddings": Product(
        about="Vectors made elsewhere, from the tables that the recipe names, checked for ids, dimension and values.",
        table="item_embeddings",
        shared=True,
        made=lambda recipe: bool(recipe.encoders.precomputed),
    ),
    "behaviour_embeddings": _vectors(
        "Vectors of the items by who bought what together, learned from training events only; learned anew by retrain alone.",
        "behaviour",
        lambda recipe: recipe.encoders.behaviour is not None,
    ),
    "fusion": Product(about="How an item's modalities become one vector; learned anew by retrain alone.", modality="fused"),
    "fused_embeddings": Product(
        about="One vector per item from all its modalities, reduced and weighted as the recipe says: what is quantized.",
        table="item_embeddings",
        shared=True,
    ),
    "codebooks": Product(
        about="The codebooks of a generation; fitted anew by retrain when items or vectors have changed.",
        table="codebooks",
        facts=("generation", "codebook_hash", "trained_on"),
    ),
    "semantic_ids": Product(
        about="One item, one SID; published SIDs stay where they are, new items take free codes near their vector.",
        table="semantic_ids",
    ),
    "retired_sids": Product(
        about="SIDs of items that have left the catalogue, held for them; absent while none has left.",
        table="retired_sids",
        optional=True,
    ),
    "user_sequences": Product(
        about="Each user's training history and held-out targets, as items and as codes.",
        table="user_sequences",
        made=lambda recipe: recipe.interactions is not None,
    ),
    "sid_trie": Product(
        about="Prefix trie of all SIDs, as compressed sparse rows: which codes may follow which prefix.", table="sid_trie"
    ),
    "sid_quality": Product(
        about="Collisions, utilisation, fidelity and embedding hit rate of the SIDs, and the verdict of each gate.",
        table="sid_quality",
        facts=("metrics",),
    ),
    "release": Product(
        about="One row that names a consistent set of table versions, appended after all laws and gates were verified again."
    ),
    "recommender": Product(
        about="A recommender trained on the release's tables: its checkpoint, scores and recommendations name the release.",
        made=lambda recipe: recipe.trainer is not None,
    ),
    "quality_report": Product(
        about="One HTML page on the release: its verdict, every metric with limit and history, charts, and the SIDs to browse."
    ),
}

VECTORS = tuple(name for name, product in PRODUCTS.items() if product.shared and name != "fused_embeddings")
"""What the encoders make: the fusion reads all of it."""

RELEASED = tuple(name for name, product in PRODUCTS.items() if product.table is not None and name not in VECTORS)
"""What a release names the versions of: the release step reads all of it."""


def stamp(name: str, state: RunState, recipe: Recipe) -> object:
    """Return what identifies the product `name` that `state` has in force, as JSON; None where it has none."""
    product = PRODUCTS[name]
    if name == "codebooks":
        return [state.generation, state.codebook_hash]
    if name == "precomputed_embeddings":
        return {modality: state.encoders.get(modality) for modality in recipe.encoders.precomputed}
    if name in ("fusion", "fused_embeddings"):
        return state.encoders.get("fused")
    if product.modality is not None:
        return state.encoders.get(product.modality)
    return state.tables.get(product.table) if product.table else None
