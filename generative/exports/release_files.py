"""An export of a release: its tables are read under a lease, and a folder appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from sidlake.errors import ContractError, NotFoundError
from sidlake.generative.exports.catalogue_codes import CatalogueCodes
from sidlake.warehouse.keep.leases import reading
from sidlake.warehouse.releases import Release
from sidlake.warehouse.tables import Warehouse
from sidlake.whole_files import replacing

__all__ = ["KINDS", "Kind", "export_release"]

Kind = Literal["static", "grid", "index-json", "hf-tokens", "hf-dataset"]
KINDS: tuple[str, ...] = get_args(Kind)


def export_release(
    warehouse: Warehouse, kind: Kind, output: Path, *, release: str = "current", dense_levels: int = 2, numbered: bool = False
) -> tuple[str, list[Path]]:
    """Write `release` to the new folder `output` as `kind` and return the release's id and the files, sorted.

    `dense_levels` is read by ``static``, `numbered` by ``index-json``. Raises `ContractError` where `output` is there already, or
    where the release cannot be told in that form; nothing is left behind then.
    """
    if output.exists():
        msg = f"{output} is there already; exports do not overwrite, name a folder that is not there"
        raise ContractError(msg, output=str(output))
    with replacing(output) as partial:
        partial.mkdir()
        with reading(warehouse, release) as found:
            files = _writer(warehouse, found, kind, dense_levels=dense_levels, numbered=numbered)(partial)
    return found.release_id, sorted(output / path.relative_to(partial) for path in files)


def _writer(
    warehouse: Warehouse, release: Release, kind: Kind, *, dense_levels: int, numbered: bool
) -> Callable[[Path], list[Path]]:
    """Return what writes the files of `kind`; imports are here, because each pulls in a library of its own."""
    if kind == "hf-dataset":
        return lambda folder: _hf_dataset(warehouse, release, folder)
    codes = _codes(warehouse, release)
    if kind == "static":
        from sidlake.generative.exports.static_index import write_static

        return lambda folder: write_static(codes, folder, dense_levels=dense_levels)
    if kind == "grid":
        from sidlake.generative.exports.code_matrix import write_grid

        return lambda folder: write_grid(codes, folder)
    if kind == "index-json":
        from sidlake.generative.exports.index_json import write_index_json

        return lambda folder: write_index_json(codes, folder, numbered=numbered)
    from sidlake.generative.exports.hf_tokens import write_hf_tokens

    return lambda folder: write_hf_tokens(codes, folder)


def _codes(warehouse: Warehouse, release: Release) -> CatalogueCodes:
    sids = warehouse.read("semantic_ids", version=release.tables["semantic_ids"], columns=["item_id", "codes"])
    return CatalogueCodes.from_tables(sids, warehouse.read("codebooks", version=release.tables["codebooks"], columns=["level"]))


def _hf_dataset(warehouse: Warehouse, release: Release, folder: Path) -> list[Path]:
    from sidlake.generative.exports.hf_dataset import SEQUENCE_COLUMNS, SID_COLUMNS, write_hf_dataset

    if "user_sequences" not in release.tables:
        msg = f"release {release.release_id} has no user_sequences: its catalogue has no interactions; export its items otherwise"
        raise NotFoundError(msg, release=release.release_id, table="user_sequences")
    sids = warehouse.batches("semantic_ids", version=release.tables["semantic_ids"], columns=list(SID_COLUMNS))
    columns = [*SEQUENCE_COLUMNS, "split"]
    sequences = warehouse.batches("user_sequences", version=release.tables["user_sequences"], columns=columns)
    return write_hf_dataset(sids, sequences, folder, name=release.release_id)
