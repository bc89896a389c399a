"""The layout's one trap, and what a user installs: see docs/decisions/0001-packaging.md."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sidlake.warehouse.tables import Warehouse

ROOT = Path(__file__).parent.parent
FOLDERS = ("assets", "encoders", "generative", "pipelines", "quality", "tokenizers", "warehouse")


def test_no_code_folder_holds_an_init_file():
    assert [str(path) for folder in (*FOLDERS, "tests") for path in (ROOT / folder).rglob("__init__.py")] == []


def test_no_folder_of_a_warehouse_is_called_like_a_module(shop, tmp_path):
    lake = Warehouse.create_or_open(tmp_path)
    made = {path.name for path in shop.warehouse.iterdir()} | {lake.staging("run").parent.parent.name}
    assert {"artifacts", "checkpoints", "delta", "readers", "reports"} <= made  # after a run, with its reading
    # the demo's data lie beside the modules of warehouse/, where mypy takes folders first
    assert made & {path.stem for path in (ROOT / "warehouse").glob("*.py")} == set()


@pytest.mark.parametrize("flags", [[], ["-P"]])
def test_hugging_face_tokenizers_is_not_shadowed_from_the_repository_root(flags):
    code = "import sidlake.tokenizers.errors, tokenizers; print(tokenizers.__file__)"
    done = subprocess.run([sys.executable, *flags, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "site-packages" in done.stdout


def test_tokenizers_and_quality_import_neither_dagster_nor_beam():
    modules = [
        f"sidlake.{folder}.{path.stem}" for folder in ("tokenizers", "quality") for path in sorted((ROOT / folder).glob("*.py"))
    ]
    code = f"import sys; [__import__(m) for m in {modules!r}]; print(sorted({{'dagster', 'apache_beam'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_wheel_holds_exactly_the_modules_of_the_tree(tmp_path):
    copy = tmp_path / "copy"  # building in the tree would leave a build/ folder, whose stale modules the next wheel would ship
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    tree = set()
    for folder in FOLDERS:
        (copy / folder).mkdir()
        for path in sorted((ROOT / folder).iterdir()):
            if path.suffix == ".py" or path.name == "py.typed":
                shutil.copy(path, copy / folder)
                tree.add(f"sidlake/{folder}/{path.name}")
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "out", "./copy"]
    subprocess.run(wheel, check=True, capture_output=True, cwd=tmp_path)
    (built,) = (tmp_path / "out").glob("*.whl")
    assert {name for name in zipfile.ZipFile(built).namelist() if name.startswith("sidlake/")} == tree


def test_make_clean_removes_data_and_no_code(tmp_path):
    for name in ("Makefile", "warehouse", "dagster_home"):
        source = ROOT / name
        if source.is_file():
            shutil.copy(source, tmp_path)
        else:
            (tmp_path / name).mkdir()
            for path in source.glob("*.*"):
                if path.is_file():
                    shutil.copy(path, tmp_path / name)
    kept = {
        str(p.relative_to(tmp_path))
        for p in tmp_path.rglob("*")
        if p.suffix in (".py", ".yaml") or p.name in ("py.typed", "Makefile")
    }
    for folder in ("delta/items", "cache/ingest", "readers"):
        (tmp_path / "warehouse" / folder).mkdir(parents=True)
        (tmp_path / "warehouse" / folder / "some.parquet").touch()
    (tmp_path / "warehouse" / "catalog.duckdb").touch()
    (tmp_path / "dagster_home" / "history").mkdir()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == kept
