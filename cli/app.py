"""The command line: the same functions that the Dagster assets call, for people and scripts.

Exit codes: 0 done, 1 refused by a check (a law, a gate, a contract, another writer), 2 bad usage (an argument, a recipe, a name
that does not exist). Errors are one message on stderr; ``--json`` prints one JSON value on stdout. Heavy imports happen inside
the commands, so that ``sidlake --help`` answers at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sidlake.cli import init as cli_init
from sidlake.cli import releases as cli_releases
from sidlake.cli import upkeep
from sidlake.cli.check import check, print_advice
from sidlake.cli.explain import explain
from sidlake.cli.export import export
from sidlake.cli.frame import frame
from sidlake.cli.import_sids import import_sids
from sidlake.cli.next_steps import next_steps
from sidlake.cli.output import (
    DEFAULT_RECIPE,
    DEFAULT_WAREHOUSE,
    JsonOption,
    MemoryOption,
    RecipeOption,
    WarehouseOption,
    open_warehouse,
    print_error,
    print_json,
    print_line,
    print_rows,
    terminal_width,
    usage,
)
from sidlake.cli.serve import serve
from sidlake.cli.validate import validate
from sidlake.errors import GateFailed, NotFoundError, RecipeError, SidlakeError

if TYPE_CHECKING:
    from sidlake.pipelines.engines import Engine

__all__ = ["app", "main"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
_Version = Annotated[bool, typer.Option("--version", help="Print the version and exit.")]
_COMPARED = ["method", "status", "raw_collision_rate", "unique_share", "moved_share", "mean_move_cost", "lowest_utilisation"]
_COMPARED += ["reconstruction_error", "ehr_raw", "ehr_unmoved", "ehr_reconstructed"]
_COMPARED_TIMES = ["embed_seconds", "fit_seconds", "assign_seconds"]


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, show_version: _Version = False) -> None:
    """Semantic IDs as a feature store: unique, checked, versioned, readable by SQL and by a training job."""
    if show_version:
        print_line(f"sidlake {version('sidlake')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        for line in next_steps(Path()):
            print_line(line)


@app.command()
def run(
    job: Annotated[str, typer.Argument(help="refresh (bring in what is new) or retrain (also a new generation and a model).")],
    recipe: RecipeOption = DEFAULT_RECIPE,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    engine: Annotated[str, typer.Option(help="local or beam.")] = "local",
    runner: Annotated[str, typer.Option(help="Beam runner, with --engine beam.")] = "FnApiRunner",
    workers: Annotated[int, typer.Option(min=1, help="Workers of the local Beam runner.")] = 1,
    override: Annotated[str | None, typer.Option(help="Why gates that refuse shall not stop the release; it is recorded.")] = None,
    despite_hold: Annotated[
        str | None, typer.Option(help="Why to publish after a rollback, which holds runs; it is recorded.")
    ] = None,
    memory: MemoryOption = None,
    reread: Annotated[bool, typer.Option("--reread", help="Believe nothing of unchanged files: read all again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a job and publish a release if anything changed.

    Example: sidlake run retrain --recipe recipes/online_retail.toml
    """
    if job not in ("refresh", "retrain"):
        usage(f"unknown job {job!r}; the jobs are refresh and retrain")
    if override is not None and not override.strip():
        usage("--override needs a reason, which becomes part of the release")
    if despite_hold is not None and not despite_hold.strip():
        usage("--despite-hold needs a reason, which becomes part of the release")

    from sidlake.pipelines.progress import Progress
    from sidlake.pipelines.recipe import load_recipe
    from sidlake.pipelines.run import RunContext, new_run_id
    from sidlake.pipelines.steps import run_job
    from sidlake.warehouse.tables import Warehouse

    console = Console(stderr=True, soft_wrap=True)
    ctx = RunContext.open(
        Warehouse.create_or_open(warehouse),
        load_recipe(recipe),
        run_id=new_run_id(),
        job=job,  # type: ignore[arg-type]
        engine=_engine(engine, runner, workers),
        progress=Progress(console),
        override=override,
        despite_hold=despite_hold,
        memory=memory,
        reread=reread,
    )
    reports = run_job(ctx)
    if as_json:
        print_json([{"step": r.step, "skipped": r.skipped, "rows": r.rows, "details": r.details} for r in reports])


@app.command()
def compare(
    methods: Annotated[
        list[str] | None, typer.Argument(help="Methods or imported SIDs by name, or files; all methods if none.")
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make and measure semantic IDs by several methods on the recipe's catalogue; publishes nothing.

    Example: sidlake compare grid tiger sidlake --recipe recipes/online_retail.toml
    """
    from dataclasses import asdict

    from sidlake.pipelines.compare import compare as compare_methods
    from sidlake.pipelines.compare import method_paths
    from sidlake.pipelines.progress import Progress

    console = Console(stderr=True, soft_wrap=True)
    paths = method_paths(recipe, methods or (), warehouse=warehouse)
    rows = compare_methods(recipe, paths, warehouse, progress=Progress(console), memory=memory)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_rows("methods", [*_COMPARED, *_COMPARED_TIMES], [asdict(row) for row in rows])
    if not any(row.status == "ok" for row in rows):
        raise typer.Exit(1)


@app.command()
def status(
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    show_all: Annotated[bool, typer.Option("--all", help="All tables, rejected rows, figures and models, not one screen.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the current release on one screen: its verdict, what is wrong and what to try, what changed, how large it is.

    Example: sidlake status --all
    """
    from sidlake.reports.brief import status_lines
    from sidlake.reports.summary import findings_of, former_rows, status_of
    from sidlake.warehouse.releases import get

    lake = open_warehouse(warehouse)
    state = status_of(lake)
    if as_json:
        print_json(state)
    elif show_all:
        _print_state(state)
    else:
        release = get(lake, state["release"])
        for line in status_lines(state, findings_of(lake, release), former_rows(lake, release), terminal_width()):
            print_line(line)


def _print_state(state: dict[str, Any]) -> None:
    print_line(f"release {state['release']} of generation {state['generation']}, {state['created_at']}: {state['verdict']}")
    if state["override"]:
        print_line(f"published against its gates by {state['published_by']}: {state['override']}")
    if state["hold"]:
        print_line(f'{state["hold"]}; runs publish nothing until: sidlake resume --reason "…"')
    print_rows("tables", ["table", "rows", "version"], state["tables"])
    print_rows("rejected rows", ["target", "rule", "rows"], state["rejected"])
    print_rows("quality", ["metric", "level", "value", "threshold", "verdict"], state["quality"])
    print_rows("models", ["model", "split", "metric", "value"], state["models"])


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
    from sidlake.reports.files import write_report

    root = None
    if recipe:
        from sidlake.pipelines.recipe import load_recipe  # imports torch, which a report does without

        root = load_recipe(recipe).folder
    about = write_report(open_warehouse(warehouse), release, against=against, root=root, output=output)
    if as_json:
        print_json(about)
        return
    print_line(f"{about['path']}: release {about['release']}, {about['verdict']}")


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
    from sidlake.reports.summary import nearest_items

    rows = nearest_items(open_warehouse(warehouse), item, k=k)
    if as_json:
        print_json(rows)
        return
    print_rows(f"nearest to {item}", ["item_id", "title", "sid", "cosine", "shared_prefix"], rows)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL over the catalogue's views.")],
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run SQL on the current release.

    Example: sidlake query "select count(*) = count(distinct sid) from semantic_ids"
    """
    from sidlake.warehouse import catalog

    lake = open_warehouse(warehouse, memory=memory)
    try:
        rows = catalog.query(lake, sql)
    except ValueError as error:
        usage(str(error))
    if as_json:
        print_json(rows.to_pylist())
        return
    print_rows(None, rows.column_names, rows.to_pylist())


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on the loopback interface.")] = 3000,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    recipe: RecipeOption = DEFAULT_RECIPE,
) -> None:
    """Open Dagster's UI on this machine (loopback only).

    Example: sidlake ui --port 3000
    """
    from sidlake.warehouse.places.location import absolute

    home = os.environ.get("DAGSTER_HOME") or str(Path("dagster_home").resolve())
    if not (Path(home) / "dagster.yaml").exists():
        usage(f"no dagster.yaml in {home}; run from the repository's root or set DAGSTER_HOME to an absolute path")
    paths = {"SIDLAKE_WAREHOUSE": absolute(warehouse), "SIDLAKE_RECIPE": str(recipe.resolve())}
    command = [str(Path(sys.executable).parent / "dagster"), "dev", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--module-name", "sidlake.assets.definitions"]
    raise typer.Exit(subprocess.call(command, env=os.environ | paths | {"DAGSTER_HOME": home}))


for _command in (*cli_init.COMMANDS, validate, check, explain, frame, serve, *cli_releases.COMMANDS, *upkeep.COMMANDS):
    app.command()(_command)
app.command("import")(import_sids)
app.add_typer(export, name="export")


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app()
    except (RecipeError, NotFoundError) as error:
        _fail(error, 2)
    except SidlakeError as error:
        _fail(error, 1)


def _engine(name: str, runner: str, workers: int) -> Engine:
    from sidlake.pipelines.engines import LocalEngine

    if name == "local":
        return LocalEngine()
    if name != "beam":
        usage(f"unknown engine {name!r}; the engines are local and beam")
    try:
        from sidlake.pipelines.beam import BeamEngine
    except ImportError:
        usage("the beam engine needs apache-beam: pip install 'sidlake[pipeline]'")
    return BeamEngine(runner=runner, num_workers=workers, running_mode="multi_processing" if workers > 1 else "in_memory")


def _fail(error: SidlakeError, code: int) -> None:
    print_error(f"sidlake: {type(error).__name__}: {error}")
    if isinstance(error, GateFailed):
        print_advice(error)
    sys.exit(code)
