"""Files of rows in an object store: the items that files of a folder give, new objects read alone, changes noticed."""

import polars as pl
import pytest
from source_files_sample import NOW, column, recipe_in

from sidlake.errors import SourceError
from sidlake.pipelines.ingest.reading import ingest
from sidlake.pipelines.ingest.stores import objects
from sidlake.pipelines.ingest.stores.fingerprint import fingerprint
from sidlake.pipelines.ingest.stores.snapshots import listed_sources
from sidlake.warehouse.places.location import locate


@pytest.fixture
def put(object_store, request):
    """Write rows of these ids to a key below a folder of the test's own."""
    place = locate(f"s3://shop/{request.node.originalname}")

    def write(key, ids):
        with place.filesystem.open_output_stream(place.arrow_path(f"{place.url}/{key}")) as stream:
            pl.DataFrame({"id": ids, "name": [f"cup {each}" for each in ids]}).write_parquet(stream)
        return f"{place.url}/{key}"

    put.place = place
    return write


def listed(folder, path, **settings):
    return listed_sources(recipe_in(folder, path, **settings), folder / "staging", folder / "copies")["items"]


def ids(folder, path, **settings):
    recipe = recipe_in(folder, path, **settings)
    return column(ingest(recipe, run_id="run", now=NOW, files={"items": listed(folder, path, **settings).files}), "item_id")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("day=1/a.parquet", [""]),
        ("*/*.parquet", ["day=1/a.parquet", "day=2/b.parquet"]),
        ("**/*.parquet", ["c.parquet", "day=1/a.parquet", "day=2/b.parquet"]),
        ("day=[2-9]/?.parquet", ["day=2/b.parquet"]),
        ("day=1", ["a.parquet"]),
        ("", ["c.parquet", "day=1/a.parquet", "day=2/b.parquet"]),
    ],
)
def test_an_object_a_folder_and_a_pattern_are_the_files_that_a_folder_of_this_machine_has(tmp_path, put, path, names):
    for at, key in enumerate(["day=1/a.parquet", "day=2/b.parquet", "c.parquet", "_temporary/d.parquet"]):
        address = put(key, [str(at)]).removesuffix(key)
    files = listed(tmp_path, f"{address}{path}").files
    assert sorted(files) == names
    assert all(file.is_file() for file in files.values())


def test_a_new_object_is_copied_alone_and_one_that_is_gone_leaves(tmp_path, put, monkeypatch):
    address = put("a.parquet", ["1"]).replace("a.parquet", "*.parquet")
    monkeypatch.setattr(objects, "_SETTLED_NS", -(10**18))  # as if an hour had passed since it was written
    assert ids(tmp_path, address) == ["1"]
    first = listed(tmp_path, address).files["a.parquet"].stat()
    put("b.parquet", ["2"])
    assert ids(tmp_path, address) == ["1", "2"]
    assert listed(tmp_path, address).files["a.parquet"].stat().st_ino == first.st_ino
    place = locate(address.removesuffix("/*.parquet"))
    place.remove(f"{place.url}/a.parquet")
    assert ids(tmp_path, address) == ["2"]


def test_an_object_of_the_same_size_written_anew_within_its_second_is_noticed(tmp_path, put):
    address = put("a.parquet", ["1"])
    assert ids(tmp_path, address) == ["1"]
    put("a.parquet", ["2"])
    assert ids(tmp_path, address) == ["2"]


def test_the_sensor_s_fingerprint_changes_with_what_is_there(tmp_path, put):
    address = put("a.parquet", ["1"]).replace("a.parquet", "*.parquet")
    recipe = recipe_in(tmp_path, address)
    first = fingerprint(recipe)
    assert fingerprint(recipe) == first
    put("b.parquet", ["2"])
    assert fingerprint(recipe) != first


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("s3://shop/none/*.parquet", r"no file of a known format at s3://shop/none/\*.parquet"),
        ("s3://nobucket/a.parquet", "source items: .*bucket"),
        ("s3://private/a/*.parquet", "AWS_ACCESS_KEY_ID"),
        ("s3://*/a.parquet", "names no bucket"),
    ],
)
def test_what_is_not_there_or_not_allowed_is_named(tmp_path, object_store, path, says):
    with pytest.raises(SourceError, match=says):
        ids(tmp_path, path)


def test_a_delta_table_that_is_named_as_files_is_told_apart(tmp_path, put):
    address = put("_delta_log/x.parquet", ["1"]).removesuffix("/_delta_log/x.parquet")
    with pytest.raises(SourceError, match="is a Delta table: set format = 'delta'"):
        ids(tmp_path, address)
