"""Rows of a Postgres database, as Arrow, by ADBC's driver (libpq and binary COPY, a wheel of its own: the extra ``postgres``).

Where the database is stands in the recipe, who may read it does not: a password in an address is refused. It comes from libpq's own
places (PGPASSWORD, ``~/.pgpass``), or the whole address from an environment variable that the recipe names, ``${SHOP_DATABASE}``.
What the server says of a failure is shown without the address. The transaction is read only. Not done here: reading only what is
new since a former run; a query is read whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import unquote

import pyarrow as pa

from sidlake.errors import SourceError

__all__ = ["address_of", "postgres_batches", "without_secrets"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def address_of(path: str) -> str:
    """Return the address that a recipe's path means: itself, or the value of the environment variable that ``${NAME}`` names.

    >>> address_of("postgresql://db.shop/sales")
    'postgresql://db.shop/sales'
    """
    named = _VARIABLE.fullmatch(path)
    if named is None:
        return path
    address = os.environ.get(named[1], "")
    if not address:
        msg = f"{path} is not set: put the database's address, postgresql://$USER:$PASSWORD@$HOST/$DATABASE, into that variable"
        raise SourceError(msg, variable=named[1])
    return address


def postgres_batches(path: str, query: str) -> Iterator[pa.RecordBatch]:
    """Yield an empty batch with the columns of `query`, then its rows; numbers of any precision, JSON and UUIDs come as text.

    Raises:
        SourceError: the driver is not installed, the variable that `path` names is not set, or a column has a type that files of
            rows do not know. What the server refuses is the driver's error, a subclass of `OSError` or `ValueError`.
    """
    try:
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi  # an extra: most catalogues are files
    except ModuleNotFoundError as error:
        msg = f"reading Postgres needs {error.name}, which is not installed: pip install 'sidlake[postgres]'"
        raise SourceError(msg, module=error.name) from error
    address = address_of(path)
    try:
        with closing(dbapi.connect(address)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("set transaction read only")
            cursor.execute(query)
            reader = cursor.fetch_record_batch()
            readable = _readable(reader.schema)
            yield pa.RecordBatch.from_pylist([], readable)
            for batch in reader:
                yield pa.RecordBatch.from_arrays(
                    [_plain(batch.column(at), field.type) for at, field in enumerate(readable)], schema=readable
                )
    except Error as error:
        raise OSError(without_secrets(str(error), address)) from None  # the driver's own error may quote the address


def without_secrets(message: str, address: str) -> str:
    """Return `message` with the address, its login and its password blotted out, as they are and as an address quotes them.

    >>> without_secrets("cannot parse postgresql://db/x?password=abc (abc)", "postgresql://db/x?password=abc")
    'cannot parse ... (...)'
    """
    rest = address.partition("://")[2]
    login = rest.rpartition("@")[0]
    secrets = {address, rest, login, login.partition(":")[2], *_values(address)}
    for secret in sorted({form for text in secrets for form in (text, unquote(text))} - {""}, key=len, reverse=True):
        message = message.replace(secret, "...")
    return message


def _values(address: str) -> list[str]:
    """Return what an address says behind its question mark, a password perhaps among it."""
    return [value for pair in address.partition("?")[2].split("&") for value in (pair, pair.partition("=")[2])]


def _readable(schema: pa.Schema) -> pa.Schema:
    """Return the columns as Parquet can hold them; `SourceError` names one that it cannot."""
    return pa.schema([pa.field(field.name, _readable_type(field)) for field in schema])


def _readable_type(field: pa.Field) -> pa.DataType:
    kind = field.type
    if isinstance(kind, pa.UuidType):
        return pa.string()
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
        if not pa.types.is_string(kind):
            raise _unknown(field)
    if pa.types.is_interval(kind) or pa.types.is_null(kind):
        raise _unknown(field)
    return kind


def _unknown(field: pa.Field) -> SourceError:
    metadata = field.metadata or {}
    told = metadata.get(b"ADBC:postgresql:typname", metadata.get(b"POSTGRESQL:type", str(field.type).encode())).decode()
    msg = f"column {field.name!r} is of type {told}, which cannot be read: cast it in the query, {field.name}::text"
    return SourceError(msg, column=field.name, type=told)


def _plain(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(values.type, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in values.to_pylist()], kind)
    return values.storage if isinstance(values, pa.ExtensionArray) else values
