"""The layout's one trap, and what a user installs: see docs/decisions/0001-packaging.md."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("assets", "encoders", "generative", "pipelines", "quality", "tokenizers", "warehouse")


def test_no_code_folder_holds_an_init_file():
    assert [str(path) for folder in (*FOLDERS, "tests") for path in (ROOT / folder).rglob("__init__.py")] == []


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
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("sidlake/")}
    tree = {
        f"sidlake/{folder}/{path.name}"
        for folder in FOLDERS
        for path in (ROOT / folder).iterdir()
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert shipped == tree
