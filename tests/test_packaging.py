"""The layout's one trap, and what a user installs: see docs/decisions/0001-packaging.md."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = (
    "assets",
    "cli",
    "encoders",
    "generative",
    "pipelines",
    "quality",
    "recipes",
    "reports",
    "serving",
    "sidlake",
    "tokenizers",
    "warehouse",
)


def test_no_code_folder_holds_an_init_file():
    assert [str(path) for folder in (*FOLDERS, "tests") for path in (ROOT / folder).rglob("__init__.py")] == []


def test_every_room_is_named_in_the_packages_and_none_is_crowded():
    rooms = {path.parent for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".toml")}
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    assert {str(room.relative_to(ROOT)) for room in rooms} == set(named.values())
    assert {str(room.relative_to(ROOT)) for room in rooms if len(list(room.glob("*.py"))) > 20} == set()


@pytest.mark.parametrize("flags", [[], ["-P"]])
def test_hugging_face_tokenizers_is_not_shadowed_from_the_repository_root(flags):
    code = "import sidlake.errors, tokenizers; print(tokenizers.__file__)"
    done = subprocess.run([sys.executable, *flags, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "site-packages" in done.stdout


def test_tokenizers_and_quality_import_neither_dagster_nor_beam():
    modules = [
        ".".join(["sidlake", *path.relative_to(ROOT).with_suffix("").parts])
        for folder in ("tokenizers", "quality")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    code = f"import sys; [__import__(m) for m in {modules!r}]; print(sorted({{'dagster', 'apache_beam'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


SHIPPED = {".py", ".css", ".sql", ".toml", ".html", ".j2"}


@pytest.mark.slow
def test_the_wheel_holds_exactly_the_modules_of_the_tree(tmp_path):
    copy = tmp_path / "copy"  # building in the tree would leave a build/ folder, whose stale modules the next wheel would ship
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    tree = set()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SHIPPED or path.name == "py.typed":
                name = path.relative_to(ROOT)
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy / name)
                tree.add(str(name if folder == "sidlake" else "sidlake" / name))
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "out", "./copy"]
    subprocess.run(wheel, check=True, capture_output=True, cwd=tmp_path)
    (built,) = (tmp_path / "out").glob("*.whl")
    assert {name for name in zipfile.ZipFile(built).namelist() if name.startswith("sidlake/")} == tree
    zipfile.ZipFile(built).extractall(tmp_path / "installed")
    code = "import sidlake.tokenizers as t, sidlake.tokenizers.registry as r; t.ResidualKMeans; print(t.__file__, r.__file__)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert [str(tmp_path / "installed") in place for place in done.stdout.split()] == [True, True]
    code = "from sidlake.pipelines.settings.methods import shipped_methods; print(*shipped_methods().values())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    methods = [path.name for path in sorted((ROOT / "recipes" / "methods").glob("*.toml"))]
    assert done.stdout.split() == [str(tmp_path / "installed" / "sidlake" / "recipes" / "methods" / name) for name in methods]


def test_make_clean_removes_data_and_no_code(tmp_path):
    for name in ("Makefile", "dagster_home"):
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
        (tmp_path / "lake" / folder).mkdir(parents=True)
        (tmp_path / "lake" / folder / "some.parquet").touch()
    (tmp_path / "lake" / "catalog.duckdb").touch()
    (tmp_path / "dagster_home" / "history").mkdir()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == kept
