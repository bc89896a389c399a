"""The reference of recipes as a page: docs/recipe.md."""

from __future__ import annotations

from sidlake.pipelines.settings.reference import IN_WORDS, Key, Section, sections

__all__ = ["reference_page"]

_HEAD = """# Recipe reference

Every key of a recipe, from the dataclasses that read it; `sidlake explain KEY` says the same in a terminal.

- NAME is a name of your own; `[]` is an entry of a list, in TOML `[[gates]]`.
- **retrain**: a refresh is refused where the value is not the one that its generation was fitted with; a retrain may change it.
- Editors complete and check a recipe whose first line is `#:schema` and the path of [recipe.schema.json](recipe.schema.json), which
  `sidlake explain --schema` prints.
- What files and columns may hold: [sources.md](sources.md). Tokenizers and their papers: [methods.md](methods.md).

Written by `python tests/test_pipelines_settings_reference.py`.
"""


def reference_page() -> str:
    """Return the page in Markdown: a section for each table, with a row for each key."""
    return "\n".join([_HEAD, *(_section(section) for section in sections())])


def _section(section: Section) -> str:
    rows = [["key", "type", "default", "what", "retrain"], ["---"] * 5, *(_row(key) for key in section.keys_at(section.paths[0]))]
    return "\n".join([_title(section), "", _prose(section.says), "", *(f"| {' | '.join(row)} |" for row in rows), ""])


def _title(section: Section) -> str:
    places = ", ".join(f"`{path}`" for path in section.paths if path) or "Top level"
    return f"## {places}{f' of {section.of}' if section.of else ''}"


def _row(key: Key) -> list[str]:
    name = key.path.split(".")[-1]
    default = key.default if key.default in IN_WORDS else f"`{key.default}`"
    return [f"`{name}`", _cell(key.type), _cell(default), _cell(key.says), "yes" if key.only_by_retrain else ""]


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def _prose(text: str) -> str:
    return text.replace("``", "`")
