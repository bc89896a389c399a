"""Text of a file in UTF-8, whatever it was compressed and encoded with: what CSV and JSON lines are read from.

How a file is compressed is told by its first bytes, its encoding by a byte-order mark or by the recipe, else it is UTF-8. A byte
that the encoding does not have is an error that names its line and the key `encoding`: which of the code pages a file is in cannot
be told from its bytes. Nothing is held whole.
"""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from sidlake.errors import SourceError

__all__ = ["encoding_of", "first_text", "open_bytes", "open_text", "scan_text"]

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bz2"), (b"\x04\x22\x4d\x18", "lz4"))
_CHUNK = 1 << 20


def open_bytes(path: Path) -> IO[bytes]:
    """Return the file's bytes, decompressed; reading them may raise OSError."""
    with path.open("rb") as stream:
        start = stream.read(4)
    codec = next((name for mark, name in _COMPRESSED if start.startswith(mark)), None)
    if codec is None:
        return path.open("rb")
    return cast("IO[bytes]", io.BufferedReader(_Decompressed(pa.CompressedInputStream(pa.OSFile(os.fspath(path)), codec))))


def encoding_of(path: Path, declared: str | None) -> str:
    """Return the encoding of a file's text: that of its byte-order mark, else the declared one, else UTF-8."""
    with open_bytes(path) as stream:
        start = stream.read(4)
    return next((name for mark, name in _MARKS if start.startswith(mark)), declared or "utf-8")


def open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """Return the file's text, line ends as they are."""
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, newline="")


def first_text(path: Path, declared: str | None) -> str:
    """Return the first thousand characters or so; bytes that the encoding does not have are replaced."""
    with open_bytes(path) as stream:
        return stream.read(4096).decode(encoding_of(path, declared), errors="replace")


def scan_text(path: Path, encoding: str) -> Iterator[str]:
    """Return the file's text in pieces.

    Raises:
        SourceError: a byte that the encoding does not have, with its line; a compressed file that is cut short.
    """
    decoder, lines, rest = codecs.getincrementaldecoder(encoding)(), 1, b""
    try:
        with open_bytes(path) as stream:
            while True:
                chunk = stream.read(_CHUNK)
                rest = rest[-8:] + chunk
                text = decoder.decode(chunk, final=not chunk)
                lines += text.count("\n")
                yield text
                if not chunk:
                    return
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        line = lines + bytes(getattr(error, "object", b"")[:at]).count(b"\n")
        msg = (
            f"source {path}: line {line} is not {encoding}: {getattr(error, 'reason', error)}; name the file's encoding "
            f"in the recipe's "
            'source, such as encoding = "cp1252" (western Windows), "latin-1" or "utf-16", or write the file as UTF-8'
        )
        raise SourceError(msg, path=str(path), line=line, encoding=encoding) from error
    except (OSError, pa.ArrowInvalid) as error:
        msg = f"source {path}: its compressed bytes cannot be read (damaged or cut short): {error}; write the file again"
        raise SourceError(msg, path=str(path)) from error


class _Decompressed(io.RawIOBase):
    """An Arrow stream as Python's buffered readers want it."""

    def __init__(self, stream: pa.NativeFile) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill `buffer`; return how many bytes were read."""
        found = self._stream.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._stream.close()
        super().close()
