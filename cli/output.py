"""What the commands share: the options every command has, how a warehouse is opened, and how results are printed.

Tables are for people and cut long values; ``--json`` prints all of them. Whatever is printed goes through here, and a terminal's
escapes in titles are shown, not obeyed (`reports.text.visible`). Heavy imports happen inside the functions.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sidlake.reports.text import visible
from sidlake.warehouse.places.location import default_warehouse

if TYPE_CHECKING:
    from sidlake.warehouse.tables import Warehouse

__all__ = [
    "DEFAULT_RECIPE",
    "DEFAULT_WAREHOUSE",
    "JsonOption",
    "MemoryOption",
    "RecipeOption",
    "WarehouseOption",
    "default_recipe",
    "open_warehouse",
    "print_error",
    "print_json",
    "print_line",
    "print_rows",
    "terminal_width",
    "usage",
]

WarehouseOption = Annotated[
    Path, typer.Option("--warehouse", "-w", envvar="SIDLAKE_WAREHOUSE", help="Folder of the warehouse, or s3://bucket/prefix.")
]
RecipeOption = Annotated[Path, typer.Option("--recipe", "-r", envvar="SIDLAKE_RECIPE", help="TOML file of the recipe.")]


def _size(text: str) -> int:
    from sidlake.memory import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory",
        parser=_size,
        metavar="SIZE",
        envvar="SIDLAKE_MEMORY",
        help="Memory that this may take, such as 4GiB; without it the recipe's, or half of the machine's. It changes no result.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
DEFAULT_WAREHOUSE = default_warehouse()


def default_recipe() -> Path:
    """Return ``recipe.toml``, which `sidlake init` writes, where this folder has one, else the demo's recipe."""
    own = Path("recipe.toml")
    return own if own.is_file() else Path("recipes/online_retail.toml")


DEFAULT_RECIPE = default_recipe()

_MAX_CELL = 48  # characters of a value that a table shows; --json shows all
_NO_TERMINAL = 100
_out = Console(soft_wrap=True)


def open_warehouse(path: Path, *, memory: int | None = None) -> Warehouse:
    """Return the warehouse at `path`; exit with code 2 where there is none."""
    from sidlake.warehouse.places.location import absolute
    from sidlake.warehouse.tables import Warehouse

    if not Warehouse.is_at(path):
        usage(f"no warehouse at {absolute(path)}; make one with: sidlake run retrain")
    return Warehouse(path, memory=memory)


def usage(message: str) -> NoReturn:
    """Say on stderr what is wrong with the command and exit with code 2."""
    print_error(f"sidlake: {message}")
    raise typer.Exit(2)


def print_error(message: str) -> None:
    """Print a message on stderr."""
    typer.echo(visible(message), err=True)


def print_json(value: object) -> None:
    """Print one JSON value; what JSON lacks is spelled as text, and what a terminal would obey as JSON's own escapes."""
    text = json.dumps(value, indent=1, default=_plain, ensure_ascii=False)
    typer.echo("".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text))


def _plain(value: object) -> str:
    return f"{len(value):,} bytes" if isinstance(value, bytes) else str(value)


def print_line(text: str) -> None:
    """Print a line as it is: no markup, no colours."""
    _out.print(visible(text), highlight=False, markup=False)


def terminal_width() -> int:
    """Return the columns of the terminal (or of COLUMNS); 100 where there is none."""
    return shutil.get_terminal_size((_NO_TERMINAL, 0)).columns


def print_rows(title: str | None, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """Print a table of `columns`, nothing where a titled one has no rows."""
    if title and not rows:
        return
    table = Table(
        title=visible(title) if title else None, title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0)
    )
    for column in columns:
        table.add_column(escape(visible(column)), no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(escape(_cell(row[column])) for column in columns))
    # as wide as its cells: a terminal wraps or scrolls, a pipe gets whole lines
    Console(width=len(columns) * (_MAX_CELL + 2)).print(table, highlight=False, crop=False, soft_wrap=True)


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else visible(_plain(value)).replace("\n", " ")
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…"
