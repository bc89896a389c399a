"""What trained models of a warehouse say they were trained on: read from `checkpoint.json`, without importing a model.

Not done here: weights, and whether they are whole (see `generative.checkpoint`, which writes and loads these folders).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from sidlake.errors import ArtifactError
from sidlake.warehouse.places.storage import storage_errors
from sidlake.warehouse.tables import Warehouse

__all__ = ["TrainedOn", "checkpoints"]

_INFO = "checkpoint.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedOn:
    """A checkpoint's folder under `checkpoints/`, and the release and codebooks that its model learned from."""

    name: str
    release_id: str
    generation: str
    codebook_hash: str


def checkpoints(warehouse: Warehouse) -> list[TrainedOn]:
    """Return the warehouse's checkpoints by name, none that is still being uploaded.

    Raises `ArtifactError` that names one that cannot be read: delete it or restore it.
    """
    system = warehouse.location.filesystem or pafs.LocalFileSystem()
    folder = warehouse.location.arrow_path(f"{warehouse.url}/checkpoints")
    with storage_errors(warehouse.checkpoints_dir):
        entries = system.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        names = sorted(entry.base_name for entry in entries if entry.type == pafs.FileType.Directory)
    whole = [name for name in names if not name.startswith(".") and warehouse.location.is_kept(warehouse.checkpoints_dir / name)]
    return [_read(system, f"{folder}/{name}", name) for name in whole]


def _read(system: pafs.FileSystem, folder: str, name: str) -> TrainedOn:
    try:
        with system.open_input_stream(f"{folder}/{_INFO}") as stream:
            values = json.loads(stream.read())
        return TrainedOn(name=name, **{key: str(values[key]) for key in ("release_id", "generation", "codebook_hash")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"checkpoint {folder} does not say what it was trained on ({_INFO}: {error}); restore that file or delete the folder"
        raise ArtifactError(msg, path=str(Path(folder, _INFO))) from error
