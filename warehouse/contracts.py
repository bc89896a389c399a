"""One Arrow schema per published table: what a reader may rely on.

A contract is a `pyarrow.Schema` whose fields carry a ``comment`` in their metadata; the catalogue and the table in docs/tables.md
are generated from it. Vectors are ``list<float32>``: a fixed-size list written by a worker cannot be read back through
`polars.scan_delta` (measured with deltalake 1.6.6). `semantic_ids` has one ``code_<level>`` column per level, so its schema is a
function of the number of levels. Not done here: checking rows (see `laws`) and writing them (see `tables`).
"""

from __future__ import annotations

import pyarrow as pa

from sidlake.errors import ContractError

__all__ = ["CONTRACTS", "PARTITIONED_BY", "conform", "narrow", "schema_of", "semantic_ids_schema"]

_TIMESTAMP = pa.timestamp("us", tz="UTC")


def _field(name: str, kind: pa.DataType, comment: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"comment": comment})


def semantic_ids_schema(num_levels: int) -> pa.Schema:
    """Return the schema of `semantic_ids` for SIDs of `num_levels` codes."""
    codes = [_field(f"code_{level}", pa.int32(), f"code of level {level}") for level in range(num_levels)]
    return pa.schema(
        [
            _field("item_id", pa.string(), "the item"),
            _field("generation", pa.string(), "the codebooks that made this SID"),
            _field("codes", pa.list_(pa.int32()), "the SID, coarse to fine; unique within a generation"),
            *codes,
            _field("sid", pa.string(), "the SID spelled as tokens: <a_12><b_7><c_33>"),
            _field(
                "sid_key",
                pa.int64(),
                "the SID as one number, mixed radix; null where the code space exceeds 63 bits",
                nullable=True,
            ),
            _field("modalities", pa.list_(pa.string()), "modalities that the item's vector was made of when the SID was assigned"),
            _field("raw_codes", pa.list_(pa.int32()), "the nearest codes, before collisions were resolved"),
            _field("moved", pa.bool_(), "whether resolving a collision changed the codes"),
            _field("move_cost", pa.float32(), "growth of the reconstruction error (Euclidean norm) by moving; 0 where not moved"),
            _field("residual_norm", pa.float32(), "Euclidean norm of the vector minus its reconstruction from `codes`"),
            _field("assigned_at", _TIMESTAMP, "when the SID was first assigned"),
        ]
    )


CONTRACTS: dict[str, pa.Schema] = {
    "items": pa.schema(
        [
            _field("item_id", pa.string(), "the item; unique and not empty"),
            _field("title", pa.string(), "the item's name"),
            _field("text", pa.string(), "what the text encoder reads: the recipe's text fields, joined"),
            _field("category", pa.list_(pa.string()), "category path, general to specific", nullable=True),
            _field("price", pa.float64(), "price in the source's currency", nullable=True),
            _field("image", pa.binary(), "picture bytes", nullable=True),
            _field(
                "image_uri",
                pa.string(),
                "where the picture is, in sources that name pictures",
                nullable=True,
            ),
            _field("content_hash", pa.string(), "128-bit BLAKE2b of the encoded content, hex; a changed hash means: embed again"),
            _field("first_seen", _TIMESTAMP, "first event, or first release where the source has no dates", nullable=True),
            _field("updated_at", _TIMESTAMP, "when this content was first ingested"),
        ]
    ),
    "interactions": pa.schema(
        [
            _field("user_id", pa.string(), "the user; not empty"),
            _field("item_id", pa.string(), "an item of `items`"),
            _field("ts", _TIMESTAMP, "when it happened; never in the future of the run"),
            _field("event", pa.string(), "kind of event, such as purchase"),
            _field(
                "weight", pa.float32(), "strength, such as quantity; finite, > 0; summed over rows of one user, item and instant"
            ),
            _field("day", pa.string(), "UTC day of `ts`, YYYY-MM-DD; the partition key"),
        ]
    ),
    "rejected_rows": pa.schema(
        [
            _field("source", pa.string(), "source the row came from"),
            _field("target", pa.string(), "table it was meant for"),
            _field("row", pa.int64(), "row number in the source, from 0; -1 for a value of an item, such as its picture"),
            _field("rule", pa.string(), "the first rule it broke"),
            _field("value", pa.string(), "the offending value", nullable=True),
            _field("run_id", pa.string(), "run that rejected it"),
        ]
    ),
    "item_embeddings": pa.schema(
        [
            _field("item_id", pa.string(), "the item"),
            _field("modality", pa.string(), "text, image, behaviour, a precomputed table's name, or fused"),
            _field("encoder_id", pa.string(), "encoder with the hash of its weights and settings"),
            _field("content_hash", pa.string(), "hash of what was encoded"),
            _field("vector", pa.list_(pa.float32()), "the embedding; finite"),
        ]
    ),
    "codebooks": pa.schema(
        [
            _field("generation", pa.string(), "the generation"),
            _field("level", pa.int32(), "level, 0 is coarsest"),
            _field("code", pa.int32(), "code within the level"),
            _field(
                "centroid",
                pa.list_(pa.float32()),
                "the code's vector in the tokenizer's latent space",
            ),
            _field("count", pa.int64(), "items whose raw code this is, at fit time"),
        ]
    ),
    "retired_sids": pa.schema(
        [
            _field("item_id", pa.string(), "the item that left the catalogue"),
            _field("generation", pa.string(), "the codebooks that made its SID"),
            _field("codes", pa.list_(pa.int32()), "its SID, held for it: no other item of the generation has it"),
            _field("sid", pa.string(), "the SID spelled as tokens"),
            _field("sid_key", pa.int64(), "the SID as one number, as in `semantic_ids`", nullable=True),
            _field("modalities", pa.list_(pa.string()), "modalities that the item's vector was made of"),
            _field("raw_codes", pa.list_(pa.int32()), "the nearest codes, before collisions were resolved"),
            _field("moved", pa.bool_(), "whether resolving a collision had changed the codes"),
            _field("move_cost", pa.float32(), "as in `semantic_ids`"),
            _field("residual_norm", pa.float32(), "as in `semantic_ids`"),
            _field("assigned_at", _TIMESTAMP, "when the SID was first assigned"),
            _field("retired_at", _TIMESTAMP, "when the item left"),
        ]
    ),
    "sid_quality": pa.schema(
        [
            _field("metric", pa.string(), "name of the metric"),
            _field("level", pa.int32(), "level it describes; null for the whole SID", nullable=True),
            _field("value", pa.float64(), "value; null where it does not apply", nullable=True),
            _field("threshold", pa.float64(), "limit set by the recipe; null where there is none", nullable=True),
            _field("verdict", pa.string(), "pass, warn, refuse or info"),
            _field("reason", pa.string(), "why the verdict is not pass, in words; null where it is", nullable=True),
            _field("examples", pa.list_(pa.string()), "items to look at first, where the verdict is not pass", nullable=True),
        ]
    ),
    "user_sequences": pa.schema(
        [
            _field("user_id", pa.string(), "the user"),
            _field("split", pa.string(), "train, valid or test (leave-one-out)"),
            _field("item_ids", pa.list_(pa.string()), "history, oldest first"),
            _field("codes", pa.list_(pa.int32()), "the history's codes, flattened: num_levels per item"),
            _field(
                "target", pa.string(), "the item to predict; null in train, whose windows slide over the history", nullable=True
            ),
        ]
    ),
    "sid_trie": pa.schema(
        [
            _field("level", pa.int32(), "depth of the node: 0 is the root's children"),
            _field("node", pa.int64(), "number of the node within its level"),
            _field("code", pa.int32(), "code on the edge into the node"),
            _field("child_start", pa.int64(), "first child within the next level"),
            _field("child_end", pa.int64(), "one past the last child; equal to child_start at leaves"),
            _field("item_id", pa.string(), "the item, at leaves", nullable=True),
        ]
    ),
    "model_metrics": pa.schema(
        [
            _field("release_id", pa.string(), "release the model was trained on"),
            _field("model", pa.string(), "the trained model's kind (decoder, sasrec, tiger), or a baseline"),
            _field("split", pa.string(), "valid, test, or epoch 1, 2, ... of the training"),
            _field("metric", pa.string(), "such as recall@10, or left_out_recall@10 without items had before"),
            _field("value", pa.float64(), "value"),
        ]
    ),
    "recommendations": pa.schema(
        [
            _field("release_id", pa.string(), "release the model was trained on"),
            _field("user_id", pa.string(), "the user"),
            _field("rank", pa.int32(), "1 is best"),
            _field("item_id", pa.string(), "the recommended item"),
            _field("score", pa.float32(), "log-probability of the item"),
        ]
    ),
    "releases": pa.schema(
        [
            _field("release_id", pa.string(), "r000001, r000002, ..."),
            _field("parent", pa.string(), "the release this one replaced", nullable=True),
            _field("generation", pa.string(), "the codebooks in use"),
            _field("created_at", _TIMESTAMP, "when it was published"),
            _field("status", pa.string(), "published or rollback"),
            _field("tables", pa.string(), "JSON: the version of each table"),
            _field("inputs", pa.string(), "JSON: digest and rows of each source"),
            _field("encoders", pa.string(), "JSON: encoder id of each modality"),
            _field("codebook_hash", pa.string(), "SHA-256 of the codebook tensors"),
            _field("config", pa.string(), "JSON: the recipe in effect"),
            _field("code_version", pa.string(), "version of sidlake"),
            _field("metrics", pa.string(), "JSON: the quality metrics of the whole SID"),
            _field("content_hash", pa.string(), "SHA-256 over the released rows, independent of time and file layout"),
            _field("steps", pa.string(), "JSON: digest of each step's inputs, by which the next run knows what to skip"),
            _field("reason", pa.string(), "why it was published"),
            _field("published_by", pa.string(), "who ran it: user@host", nullable=True),
            _field("override", pa.string(), "why refusing gates were overridden; null where none was", nullable=True),
            _field("trained_on", pa.string(), "JSON: the rows the codebooks were fitted on: number, digest", nullable=True),
        ]
    ),
    "sid_ledger": pa.schema(
        [
            _field("generation", pa.string(), "the codebooks that made the SID"),
            _field("item_id", pa.string(), "the item whose SID it is, for as long as the generation is in use"),
            _field("codes", pa.list_(pa.int32()), "the SID; neither it nor the item occurs twice within a generation"),
            _field("sid", pa.string(), "the SID spelled as tokens"),
            _field("sid_key", pa.int64(), "the SID as one number, as in `semantic_ids`", nullable=True),
            _field("modalities", pa.list_(pa.string()), "modalities that the item's vector was made of"),
            _field("raw_codes", pa.list_(pa.int32()), "the nearest codes, before collisions were resolved"),
            _field("moved", pa.bool_(), "whether resolving a collision had changed the codes"),
            _field("move_cost", pa.float32(), "as in `semantic_ids`"),
            _field("residual_norm", pa.float32(), "as in `semantic_ids`"),
            _field("assigned_at", _TIMESTAMP, "when the SID was first assigned"),
            _field("release_id", pa.string(), "the release that was to name it first; a run that died just before may not have"),
            _field("run_id", pa.string(), "the run that gave it"),
        ]
    ),
    "lifted_holds": pa.schema(
        [
            _field("release_id", pa.string(), "the rollback after which runs publish again"),
            _field("lifted_at", _TIMESTAMP, "when"),
            _field("lifted_by", pa.string(), "who: user@host"),
            _field("reason", pa.string(), "why, in the person's words"),
        ]
    ),
    "file_digests": pa.schema(
        [
            _field("table_name", pa.string(), "the table"),
            _field("file", pa.string(), "the file's name below the table's folder"),
            _field("sha256", pa.string(), "SHA-256 of its bytes, hex, when a release first named it"),
        ]
    ),
    "pins": pa.schema(
        [
            _field("name", pa.string(), "the name, such as prod"),
            _field("number", pa.int64(), "0, 1, 2, ... over all names; the highest of a name is in force"),
            _field("release_id", pa.string(), "the release it points at; null where the name was taken away", nullable=True),
            _field("set_at", _TIMESTAMP, "when"),
            _field("set_by", pa.string(), "who: user@host"),
            _field("reason", pa.string(), "why, in the person's words", nullable=True),
        ]
    ),
    "vacuumed": pa.schema(
        [
            _field("release_id", pa.string(), "a release whose files may be gone: it cannot be read any more"),
            _field("vacuumed_at", _TIMESTAMP, "when"),
            _field("vacuumed_by", pa.string(), "who: user@host"),
            _field("reason", pa.string(), "what was kept, and that this was not"),
        ]
    ),
}

PARTITIONED_BY: dict[str, list[str]] = {"interactions": ["day"]}


def schema_of(table: str, *, num_levels: int | None = None) -> pa.Schema:
    """Return the contract of `table`; `num_levels` is needed for ``semantic_ids`` only."""
    if table == "semantic_ids":
        if num_levels is None:
            msg = "the schema of semantic_ids depends on num_levels"
            raise ValueError(msg)
        return semantic_ids_schema(num_levels)
    return CONTRACTS[table]


def narrow(data: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return `data` in the types of `schema`, in more chunks where a column is beyond what 32-bit offsets can hold in one.

    Tables store strings and lists with 32-bit offsets; Polars gives 64-bit ones, of any number of bytes or values.
    """
    columns = [
        pa.chunked_array([part for chunk in column.chunks for part in _parts(chunk, field.type)], field.type)
        for column, field in zip((data.column(name) for name in schema.names), schema, strict=True)
    ]
    return pa.table(columns, schema=schema)


def _parts(array: pa.Array, kind: pa.DataType) -> list[pa.Array]:
    try:
        return [array.cast(kind)]
    except pa.ArrowInvalid as error:
        if "too large" not in str(error) or len(array) < 2:
            raise
    half = len(array) // 2  # a slice keeps its offsets from the whole's begin: copied, they start at zero
    return [part for piece in (array[:half], array[half:]) for part in _parts(pa.concat_arrays([piece]), kind)]


def conform(data: pa.Table, table: str, *, num_levels: int | None = None) -> pa.Table:
    """Return `data` with exactly the contract's columns, order and types, or raise `ContractError` naming the first difference."""
    schema = schema_of(table, num_levels=num_levels)
    missing = [name for name in schema.names if name not in data.column_names]
    extra = [name for name in data.column_names if name not in schema.names]
    if missing or extra:
        msg = f"table {table}: missing columns {missing}, unknown columns {extra}; the contract has {schema.names}"
        raise ContractError(msg, table=table, missing=missing, extra=extra)
    try:
        result = narrow(data.select(schema.names), schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        msg = f"table {table}: {error}; the contract is {schema.to_string(show_field_metadata=False)}"
        raise ContractError(msg, table=table) from error
    for field in schema:
        nulls = result.column(field.name).null_count
        if nulls and not field.nullable:
            msg = f"table {table}: column {field.name} has {nulls} nulls, allowed 0"
            raise ContractError(msg, table=table, column=field.name, nulls=nulls)
    return result
