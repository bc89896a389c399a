"""Which folder may import which: the arrows of the layout table in docs/architecture.md."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "tokenizers": set(),
    "encoders": {"tokenizers"},
    "warehouse": {"tokenizers"},
    "quality": {"tokenizers"},
    "generative": {"tokenizers", "warehouse"},
    "reports": {"generative", "quality", "tokenizers", "warehouse"},
    "serving": {"generative", "tokenizers", "warehouse"},
    "pipelines": {"encoders", "generative", "quality", "reports", "tokenizers", "warehouse"},
    "cli": {"assets", "encoders", "generative", "pipelines", "quality", "reports", "serving", "tokenizers", "warehouse"},
    "assets": {"cli", "encoders", "generative", "pipelines", "quality", "reports", "tokenizers", "warehouse"},
}
BELOW_ALL = {"sidlake.errors", "sidlake.memory", "sidlake.whole_files"}
"""Modules that every folder may import."""


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_follow_the_arrows(folder):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in imports_of(path)
        if name.startswith("sidlake.") and name not in BELOW_ALL and name.split(".")[1] not in ALLOWED[folder] | {folder}
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", [name for name in ALLOWED if name not in ("assets", "cli", "pipelines")])
def test_orchestration_stays_out_of_the_lower_folders(folder):
    heavy = {"dagster", "apache_beam"}
    wrong = [p.name for p in (ROOT / folder).rglob("*.py") if heavy & {name.split(".")[0] for name in imports_of(p)}]
    assert wrong == []


def test_dagster_is_imported_in_assets_only():
    wrong = [p.name for p in (ROOT / "pipelines").rglob("*.py") if any(name.split(".")[0] == "dagster" for name in imports_of(p))]
    assert wrong == []
