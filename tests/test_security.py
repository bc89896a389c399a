"""Security: nothing stored can run code, input reaches no SQL and no path outside, pictures are bounded, the UI stays at home."""

import ast
import io
import struct
import warnings
import zlib
from pathlib import Path

import polars as pl
import pytest
import typer
import warehouse_sample as sample
from PIL import Image

from sidlake.cli import app as cli
from sidlake.encoders.image.encoder import ImageEncoder, ImageEncoderConfig
from sidlake.errors import NotFoundError
from sidlake.reports.summary import item_card
from sidlake.warehouse.catalog import query
from sidlake.warehouse.releases import get, publish
from sidlake.warehouse.tables import Warehouse

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("assets", "encoders", "generative", "pipelines", "quality", "tokenizers", "warehouse")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))]
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
HOSTILE = ["'; DROP TABLE items; --", '"; DELETE FROM items', "../../etc/passwd", "a/b", "<script>", "%s{0}", "a\nb", "'' OR 1=1"]


def found(wrong):
    """Return file:line of the nodes of our code for which `wrong(node)` holds."""
    return [
        f"{path.parent.name}/{path.name}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if hasattr(node, "lineno") and wrong(node)
    ]


def name_of(node):
    """Return the called name: `torch.load` as "torch.load"."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def keyword(node, name):
    """Return the constant that a call gives for a keyword, None where it gives none."""
    given = [one.value for one in node.keywords if one.arg == name] if isinstance(node, ast.Call) else []
    return given[0].value if given and isinstance(given[0], ast.Constant) else None


def test_nothing_is_pickled_or_unpickled():
    def pickles(node):  # the name of the error, which a damaged file of torch raises, is all that may be used
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return node.value.id in RUNS_CODE and node.attr != "UnpicklingError"
        return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in RUNS_CODE

    assert found(pickles) == []


def test_nothing_runs_text_or_a_shell():
    def runs(node):
        return name_of(node) in ("eval", "exec", "os.system", "os.popen", "compile") or keyword(node, "shell") is True

    assert found(runs) == []


def test_tensors_are_loaded_as_weights_and_arrays_without_objects():
    def loads(node):
        if name_of(node) == "torch.load":
            return keyword(node, "weights_only") is not True
        return name_of(node) in ("np.load", "numpy.load") and keyword(node, "allow_pickle") is not False

    assert found(loads) == []


def test_models_are_loaded_without_code_of_their_own():
    def trusts(node):
        given = keyword(node, "trust_remote_code")
        return given is True or (name_of(node) == "SentenceTransformer" and given is not False)

    assert found(trusts) == []


def test_the_scan_finds_what_it_looks_for():
    tree = ast.parse("torch.load(p)\neval(x)\nf(trust_remote_code=True)")
    assert [name_of(node) for node in ast.walk(tree) if isinstance(node, ast.Call)] == ["torch.load", "eval", "f"]
    assert keyword(tree.body[2].value, "trust_remote_code") is True


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A warehouse in a folder with a hostile name whose items are named to break SQL, shells and paths."""
    warehouse = Warehouse.create_or_open(tmp_path_factory.mktemp("lake") / "it's; \"--")
    tables = sample.write(warehouse)
    codes = sample.codes_of(len(HOSTILE))
    tables["items"] = warehouse.overwrite("items", sample.items(HOSTILE), run_id="run")
    tables["interactions"] = warehouse.overwrite("interactions", sample.interactions(HOSTILE), run_id="run")
    tables["semantic_ids"] = warehouse.overwrite("semantic_ids", sample.semantic_ids(HOSTILE, codes), run_id="run")
    tables["user_sequences"] = warehouse.overwrite("user_sequences", sample.sequences(HOSTILE, codes), run_id="run")
    tables["sid_trie"] = warehouse.overwrite("sid_trie", sample.trie(HOSTILE, codes), run_id="run")
    publish(warehouse, sample.draft(tables), expected_parent=None)
    return warehouse


@pytest.mark.parametrize("item", HOSTILE)
def test_an_item_named_like_sql_or_a_path_is_an_item_like_any_other(hostile, item):
    assert item_card(hostile, item)["item_id"] == item
    quoted = item.replace("'", "''")
    assert query(hostile, f"SELECT item_of(sid_of('{quoted}')) AS item").to_pylist() == [{"item": item}]
    assert not [path for path in hostile.root.rglob("*") if "passwd" in path.name or "script" in path.name]


@pytest.mark.parametrize("name", ["'; DROP TABLE releases; --", "../r000001", "r000001' OR '1'='1"])
def test_a_release_named_like_sql_does_not_exist(hostile, name):
    with pytest.raises(NotFoundError, match="no release"):
        get(hostile, name)
    assert query(hostile, "SELECT count(*) AS n FROM releases").to_pylist() == [{"n": 1}]


@pytest.mark.parametrize("sql", ["COPY items TO '/tmp/x.csv'", "INSTALL httpfs", "ATTACH 'x.db'", "SET lock_configuration = false"])
def test_sql_of_users_can_only_select(hostile, sql):
    with pytest.raises(ValueError, match="expected one SELECT"):
        query(hostile, sql)


@pytest.mark.parametrize("place", ["/etc/passwd", "../outside.duckdb", "https://example.org/x.parquet"])
def test_a_select_of_users_reads_no_other_file(hostile, place):
    with pytest.raises(ValueError, match=r"(?i)disabled|permission|cannot access|not allowed"):
        query(hostile, f"SELECT * FROM read_text('{place}')")


@pytest.mark.parametrize("run_id", ["../x", "a/b", ".hidden", "", "x" * 201, "a\x00b"])
def test_a_run_id_cannot_name_a_folder_outside(tmp_path, run_id):
    with pytest.raises(ValueError, match="it names a directory"):
        Warehouse(tmp_path).staging(run_id)


def bomb(width, height):
    """Return a PNG of a few hundred bytes that says it has width x height pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (50_000_001, 1), (60_000, 1000)])
def test_a_picture_that_would_fill_the_memory_is_refused_unread(width, height):
    encoder = ImageEncoder.load(ImageEncoderConfig())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = encoder.encode([bomb(width, height)])
    assert not result.present_N.any()
    assert "allowed 50000000" in result.rejected[0].reason or "exceeds limit" in result.rejected[0].reason


def test_a_picture_with_a_text_chunk_that_unpacks_to_more_than_it_may_is_refused():
    picture, packed = io.BytesIO(), zlib.compress(bytes(80 * 2**20))
    Image.new("RGB", (4, 4)).save(picture, format="PNG")
    data = b"zTXt" + b"Comment\x00\x00" + packed
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    whole = picture.getvalue()
    result = ImageEncoder.load(ImageEncoderConfig()).encode([whole[:33] + chunk + whole[33:]])
    assert "too large" in result.rejected[0].reason


@pytest.mark.parametrize("place", ["../secret.png", "/etc/passwd", "sub/../../secret.png", "link.png"])
def test_a_picture_outside_the_recipes_folder_is_not_read(tmp_path, place):
    folder = tmp_path / "recipe"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    result = ImageEncoder.load(ImageEncoderConfig()).encode([place], root=folder)
    assert "leads out of the recipe's folder" in result.rejected[0].reason


@pytest.mark.parametrize("place", ["http://127.0.0.1:1/x.png", "https://example.org/x.png"])
def test_a_picture_behind_a_url_is_not_fetched_unless_the_recipe_says_so(place):
    result = ImageEncoder.load(ImageEncoderConfig()).encode([place])
    assert "allow_urls is off" in result.rejected[0].reason


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://example.org/x.png"])
def test_other_schemes_than_http_are_paths_that_lead_nowhere_even_where_urls_are_allowed(tmp_path, place):
    result = ImageEncoder.load(ImageEncoderConfig(allow_urls=True)).encode([place], root=tmp_path)
    assert "No such file" in result.rejected[0].reason


def test_the_ui_listens_on_the_loopback_interface_and_no_option_changes_that(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(cli.subprocess, "call", lambda command, env: started.append(command) or 0)
    (tmp_path / "dagster.yaml").touch()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with pytest.raises(typer.Exit):
        cli.ui(port=3001, warehouse=tmp_path, recipe=tmp_path / "r.toml")
    assert started[0][started[0].index("--host") + 1] == "127.0.0.1"
    assert "host" not in {option.name for option in typer.main.get_command(cli.app).commands["ui"].params}


def test_a_source_is_data_whatever_its_cells_hold(tmp_path):
    from sidlake.pipelines.ingest.reading import ingest
    from sidlake.pipelines.recipe import load_recipe

    pl.DataFrame({"id": HOSTILE, "name": [f"{item} name" for item in HOSTILE]}).write_parquet(tmp_path / "items.parquet")
    (tmp_path / "recipe.toml").write_text(
        'name = "t"\n[sources.items]\npath = "items.parquet"\n'
        '[items]\nsource = "items"\nitem_id = "id"\ntitle = { column = "name" }\n'
    )
    made = ingest(load_recipe(tmp_path / "recipe.toml"), run_id="run", now=sample.NOW)
    assert sorted(made.items["item_id"].to_pylist()) == sorted(HOSTILE)
