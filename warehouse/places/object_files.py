"""An object store's files as DuckDB reads them: SQL over ``s3://`` paths without DuckDB's httpfs, which no package index carries.

DuckDB calls an fsspec file system that is registered with the connection; this one reads through Arrow's S3 client. Objects that a
table version names never change, so within a connection a small one is fetched once, and names are never listed.
Not done here: writing.
"""

from __future__ import annotations

import io
from typing import Any

import duckdb
import pyarrow.fs as pafs
from fsspec import AbstractFileSystem

from sidlake.warehouse.places.location import LocalFolder, ObjectStore

__all__ = ["let_read"]

_SMALL = 4 << 20
_MAX_KEPT = 256 << 20


def let_read(connection: duckdb.DuckDBPyConnection, location: LocalFolder | ObjectStore) -> None:
    """Let `connection` read the files of the warehouse at `location`; a folder's it reads by itself."""
    if isinstance(location, ObjectStore):
        connection.register_filesystem(_ObjectFiles(location.filesystem))


class _ObjectFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files of ``s3://``, read-only; at most `_MAX_KEPT` bytes of small ones in memory."""

    protocol = "s3"
    cachable = False

    def __init__(self, filesystem: pafs.FileSystem) -> None:
        super().__init__()
        self._files = filesystem
        self._infos: dict[str, pafs.FileInfo] = {}
        self._kept: dict[str, bytes] = {}
        self._room = _MAX_KEPT

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:  # noqa: ANN401 - what fsspec's signature says
        """Return the object, opened for reading at any place."""
        key = path.removeprefix("s3://")
        if key in self._kept:
            return io.BytesIO(self._kept[key])
        size = self.size(path)
        if size > min(_SMALL, self._room):
            return self._files.open_input_file(key)
        with self._files.open_input_file(key) as file:
            content = self._kept[key] = file.read()
        self._room -= size
        return io.BytesIO(content)

    def size(self, path: str) -> int:
        """Return the object's size in bytes; FileNotFoundError where there is none."""
        info = self._info(path)
        if info.type != pafs.FileType.File:
            raise FileNotFoundError(path)
        return int(info.size)

    def modified(self, path: str) -> Any:  # noqa: ANN401
        """Return when the object was written."""
        return self._info(path).mtime

    def exists(self, path: str, **_: Any) -> bool:  # noqa: ANN401
        """Return whether there is such an object."""
        return bool(self._info(path).type == pafs.FileType.File)

    def glob(self, path: str, **_: Any) -> list[str]:  # noqa: ANN401
        """Return the one path that `relations.without_globs` made this pattern of."""
        return [path.replace("[?]", "?").replace("[*]", "*").replace("[[]", "[")]

    def _info(self, path: str) -> pafs.FileInfo:
        key = path.removeprefix("s3://")
        if key not in self._infos:
            self._infos[key] = self._files.get_file_info(key)
        return self._infos[key]
