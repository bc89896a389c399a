"""Where methods are found by name: in a folder ``methods`` of the catalogue's own, and among those that are installed with sidlake.

The repository's `recipes/` is installed as it is (docs/decisions/0001-packaging.md): no method is written down twice, and the same
path leads to it from a checkout and from a wheel.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["SHIPPED_RECIPES", "method_file", "methods_in", "shipped_methods"]

SHIPPED_RECIPES = Path(__file__).resolve().parents[2] / "recipes"
"""The example recipes and, in its folder ``methods``, the methods of this version."""


def shipped_methods() -> dict[str, Path]:
    """Return the files of the methods that are installed with sidlake, by name, in the order of names."""
    return methods_in(SHIPPED_RECIPES)


def methods_in(folder: Path) -> dict[str, Path]:
    """Return the files in the folder ``methods`` of `folder` by name, in the order of names; empty without such a folder."""
    return {path.stem: path for path in sorted((folder / "methods").glob("*.toml"))}


def method_file(folder: Path, named: str) -> Path:
    """Return the file that a recipe in `folder` names: ``methods/tiger.toml``.

    Its own file comes first; where it has none, that path leads to the method of this name that is installed with sidlake.
    """
    own = folder / named
    shipped = SHIPPED_RECIPES / named
    return shipped if not own.exists() and shipped in shipped_methods().values() else own
