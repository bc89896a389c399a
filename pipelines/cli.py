"""The command line: the same functions that the Dagster assets call, for people and scripts.

Exit codes: 0 done, 1 refused by a check (a law, a gate, a contract, another writer), 2 bad usage (an argument, a recipe, a name
that does not exist). Errors are one message on stderr; ``--json`` prints one JSON value on stdout. Heavy imports happen inside
the commands, so that ``sidlake --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sidlake.tokenizers.errors import NotFoundError, RecipeError, SidlakeError

if TYPE_CHECKING:
    from sidlake.pipelines.engine import Engine
    from sidlake.warehouse.tables import Warehouse

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_out = Console(soft_wrap=True)

WarehouseOption = Annotated[Path, typer.Option("--warehouse", "-w", envvar="SIDLAKE_WAREHOUSE", help="Folder of the warehouse.")]
RecipeOption = Annotated[Path, typer.Option("--recipe", "-r", envvar="SIDLAKE_RECIPE", help="TOML file of the recipe.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_CELL = 48  # characters of a value that a table shows; --json shows all
_COMPARED = ["method", "status", "raw_collision_rate", "unique_share", "moved_share", "mean_move_cost", "lowest_utilisation"]
_COMPARED += ["reconstruction_error", "ehr_raw", "ehr_unmoved", "ehr_reconstructed"]
_COMPARED_TIMES = ["embed_seconds", "fit_seconds", "assign_seconds"]
DEFAULT_WAREHOUSE = Path("warehouse")
DEFAULT_RECIPE = Path("recipes/online_retail.toml")


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Semantic IDs as a feature store: unique, checked, versioned, readable by SQL and by a training job."""
    if show_version:
        typer.echo(f"sidlake {version('sidlake')}")
        raise typer.Exit


@app.command()
def run(
    job: Annotated[str, typer.Argument(help="refresh (bring in what is new) or retrain (also a new generation and a model).")],
    recipe: RecipeOption = DEFAULT_RECIPE,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    engine: Annotated[str, typer.Option(help="local or beam.")] = "local",
    runner: Annotated[str, typer.Option(help="Beam runner, with --engine beam.")] = "FnApiRunner",
    workers: Annotated[int, typer.Option(min=1, help="Workers of the local Beam runner.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Run a job and publish a release if anything changed.

    Example: sidlake run retrain --recipe recipes/online_retail.toml
    """
    from sidlake.pipelines.context import RunContext, new_run_id
    from sidlake.pipelines.jobs import run_job
    from sidlake.pipelines.progress import Progress
    from sidlake.pipelines.recipe import load_recipe
    from sidlake.warehouse.tables import Warehouse

    if job not in ("refresh", "retrain"):
        _usage(f"unknown job {job!r}; the jobs are refresh and retrain")
    console = Console(stderr=True, soft_wrap=True)
    ctx = RunContext.open(
        Warehouse.create_or_open(warehouse),
        load_recipe(recipe),
        run_id=new_run_id(),
        job=job,  # type: ignore[arg-type]
        engine=_engine(engine, runner, workers),
        progress=Progress(console),
    )
    reports = run_job(ctx)
    if as_json:
        _print_json([{"step": r.step, "skipped": r.skipped, "rows": r.rows, "details": r.details} for r in reports])


@app.command()
def compare(
    methods: Annotated[list[str] | None, typer.Argument(help="Methods by name or file; all beside the recipe, if none.")] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Make and measure semantic IDs by several methods on the recipe's catalogue; publishes nothing.

    Example: sidlake compare grid tiger sidlake --recipe recipes/online_retail.toml
    """
    from dataclasses import asdict

    from sidlake.pipelines.comparison import compare as compare_methods
    from sidlake.pipelines.comparison import method_paths
    from sidlake.pipelines.progress import Progress

    console = Console(stderr=True, soft_wrap=True)
    rows = compare_methods(recipe, method_paths(recipe, methods or ()), warehouse, progress=Progress(console))
    if as_json:
        _print_json([asdict(row) for row in rows])
        return
    _print_rows("methods", [*_COMPARED, *_COMPARED_TIMES], [asdict(row) for row in rows])
    if not any(row.status == "ok" for row in rows):
        raise typer.Exit(1)


@app.command()
def status(warehouse: WarehouseOption = DEFAULT_WAREHOUSE, as_json: JsonOption = False) -> None:
    """Show the current release: tables with rows, rejected rows by rule, the quality verdict, the model's metrics.

    Example: sidlake status --json
    """
    from sidlake.pipelines.summary import status_of

    state = status_of(_open(warehouse))
    if as_json:
        _print_json(state)
        return
    _out.print(f"release {state['release']} of generation {state['generation']}, {state['created_at']}: {state['verdict']}")
    _print_rows("tables", ["table", "rows", "version"], state["tables"])
    _print_rows("rejected rows", ["target", "rule", "rows"], state["rejected"])
    _print_rows("quality", ["metric", "level", "value", "threshold", "verdict"], state["quality"])
    _print_rows("models", ["model", "split", "metric", "value"], state["models"])


@app.command()
def report(
    release: Annotated[str, typer.Argument(help="A release, such as r000003.")] = "current",
    against: Annotated[str | None, typer.Option(help="Release to compare with; the one before, if none.")] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", "-r", help="Recipe, for pictures that items name: its folder is where paths start.")
    ] = None,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="HTML file; reports/RELEASE.html if none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the quality report of a release: one HTML page that explains what was judged, and shows the SIDs.

    Example: sidlake report r000003 --against r000001 -o report.html
    """
    from sidlake.pipelines.recipe import load_recipe
    from sidlake.pipelines.report_step import write_report

    root = load_recipe(recipe).folder if recipe else None
    about = write_report(_open(warehouse), release, against=against, root=root, output=output)
    if as_json:
        _print_json(about)
        return
    _out.print(f"{about['path']}: release {about['release']}, {about['verdict']}", highlight=False)


@app.command()
def show(
    item: Annotated[str, typer.Argument(help="An item_id, or a SID such as '<a_1><b_2><c_3>'.")],
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Show an item, its SID, and the items that share each prefix of it.

    Example: sidlake show 85123A
    """
    from sidlake.pipelines.summary import item_card

    card = item_card(_open(warehouse), item)
    if as_json:
        _print_json(card)
        return
    moved = f"  (moved from {card['raw_sid']})" if card["moved"] else ""
    _out.print(f"{card['item_id']}  {card['title']}\n  SID {card['sid']}{moved}")
    for prefix in card["prefixes"]:
        _out.print(f"  {prefix['prefix']} shared with {prefix['items']} other items: {'; '.join(prefix['examples']) or '-'}")


@app.command()
def neighbors(
    item: Annotated[str, typer.Argument(help="An item_id.")],
    k: Annotated[int, typer.Option("-k", "--count", min=1, help="How many.")] = 10,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Show the items nearest to an item by its fused vector, with their SIDs.

    Example: sidlake neighbors 85123A -k 5
    """
    from sidlake.pipelines.summary import nearest_items

    rows = nearest_items(_open(warehouse), item, k=k)
    if as_json:
        _print_json(rows)
        return
    _print_rows(f"nearest to {item}", ["item_id", "title", "sid", "cosine", "shared_prefix"], rows)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL over the catalogue's views.")],
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Run SQL on the current release.

    Example: sidlake query "select count(*) = count(distinct sid) from semantic_ids"
    """
    from sidlake.warehouse import catalog

    _open(warehouse)
    try:
        rows = catalog.query(_open(warehouse), sql)
    except ValueError as error:
        _usage(str(error))
    if as_json:
        _print_json(rows.to_pylist())
        return
    _print_rows(None, rows.column_names, rows.to_pylist())


@app.command()
def releases(warehouse: WarehouseOption = DEFAULT_WAREHOUSE, as_json: JsonOption = False) -> None:
    """List the releases, newest first.

    Example: sidlake releases
    """
    from sidlake.warehouse.releases import history

    columns = ["release_id", "parent", "generation", "created_at", "status", "content_hash", "reason"]
    rows = [{name: getattr(release, name) for name in columns} for release in reversed(history(_open(warehouse)))]
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        row["content_hash"] = str(row["content_hash"])[:12]
        row["created_at"] = f"{row['created_at']:%Y-%m-%d %H:%M:%S}"
    _print_rows("releases", columns, rows)


@app.command("import")
def import_sids(
    file: Annotated[Path, typer.Argument(help="A file of semantic IDs that others published.")],
    file_format: Annotated[str, typer.Option("--format", "-f", help="index_json, grid, openonerec, npy or parquet.")],
    name: Annotated[str, typer.Option("--name", "-n", help="What to call the assignment.")],
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Parquet file; assignments/NAME.parquet if none.")] = None,
    source: Annotated[str, typer.Option(help="Where it comes from; the file's name if empty.")] = "",
    levels: Annotated[int | None, typer.Option(min=1, help="Keep the first levels only.")] = None,
    width: Annotated[list[int] | None, typer.Option(min=1, help="Codes of a level; one for all levels, or one each.")] = None,
    ids: Annotated[Path | None, typer.Option(help="Item of each row of grid and npy, one per line.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring in semantic IDs made elsewhere, to be measured like our own; publishes nothing.

    Example: sidlake import Beauty.index.json --format index_json --name letter --width 256
    """
    from sidlake.pipelines.imported import FORMATS, describe_assignment, read_assignment, write_assignment
    from sidlake.warehouse.storage import disk_errors

    if file_format not in FORMATS:
        _usage(f"unknown format {file_format!r}; the formats are {', '.join(FORMATS)}")
    if not _PLAIN_NAME.fullmatch(name):
        _usage(f"{name!r} cannot name a file: a name is letters, digits, '.', '_' and '-', and starts with a letter or digit")
    found = read_assignment(file, file_format, name=name, source=source, widths=width, num_levels=levels, ids_path=ids)
    path = output or warehouse / "assignments" / f"{name}.parquet"
    with disk_errors(path):
        write_assignment(found, path)
    about = describe_assignment(found) | {"path": str(path)}
    if as_json:
        _print_json(about)
        return
    sizes = "x".join(str(size) for size in about["widths"])
    _out.print(
        f"{name}: {about['items']:,} items, {about['different_sids']:,} different SIDs of {sizes}, in {path}", highlight=False
    )
    for note in about["stripped"]:
        _out.print(f"  left out {note}", highlight=False)
    if about["ends_in_deduplication"]:
        _out.print(f"  the last level only numbers the items of one SID; --levels {len(about['widths']) - 1} leaves it out")


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on the loopback interface.")] = 3000,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    recipe: RecipeOption = DEFAULT_RECIPE,
) -> None:
    """Open Dagster's UI on this machine (loopback only).

    Example: sidlake ui --port 3000
    """
    home = os.environ.get("DAGSTER_HOME") or str(Path("dagster_home").resolve())
    if not (Path(home) / "dagster.yaml").exists():
        _usage(f"no dagster.yaml in {home}; run from the repository's root or set DAGSTER_HOME to an absolute path")
    paths = {"SIDLAKE_WAREHOUSE": str(warehouse.resolve()), "SIDLAKE_RECIPE": str(recipe.resolve())}
    command = [str(Path(sys.executable).parent / "dagster"), "dev", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--module-name", "sidlake.assets.definitions"]
    raise typer.Exit(subprocess.call(command, env=os.environ | paths | {"DAGSTER_HOME": home}))


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app()
    except (RecipeError, NotFoundError) as error:
        _fail(error, 2)
    except SidlakeError as error:
        _fail(error, 1)


def _open(path: Path) -> Warehouse:
    from sidlake.warehouse.tables import Warehouse

    if not path.is_dir():
        _usage(f"no warehouse at {path.resolve()}; make one with: sidlake run retrain")
    return Warehouse(path)


def _engine(name: str, runner: str, workers: int) -> Engine:
    from sidlake.pipelines.engine import LocalEngine

    if name == "local":
        return LocalEngine()
    if name != "beam":
        _usage(f"unknown engine {name!r}; the engines are local and beam")
    try:
        from sidlake.pipelines.beam_engine import BeamEngine
    except ImportError:
        _usage("the beam engine needs apache-beam: pip install 'sidlake[pipeline]'")
    return BeamEngine(runner=runner, num_workers=workers, running_mode="multi_processing" if workers > 1 else "in_memory")


def _usage(message: str) -> None:
    typer.echo(f"sidlake: {message}", err=True)
    raise typer.Exit(2)


def _fail(error: SidlakeError, code: int) -> None:
    typer.echo(f"sidlake: {type(error).__name__}: {error}", err=True)
    sys.exit(code)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=1, default=_plain, ensure_ascii=False))


def _plain(value: object) -> str:
    return f"{len(value):,} bytes" if isinstance(value, bytes) else str(value)


def _print_rows(title: str | None, columns: list[str], rows: list[dict[str, Any]]) -> None:
    if title and not rows:
        return
    table = Table(title=title, title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(escape(_cell(row[column])) for column in columns))
    # as wide as its cells: a terminal wraps or scrolls, a pipe gets whole lines
    Console(width=len(columns) * (_MAX_CELL + 2)).print(table, highlight=False, crop=False, soft_wrap=True)


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else _plain(value)
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…"
