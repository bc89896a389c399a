"""`sidlake export`: a release's SIDs as the files that other projects read; one command a format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidlake.cli.output import DEFAULT_WAREHOUSE, JsonOption, WarehouseOption, open_warehouse, print_json, print_line

if TYPE_CHECKING:
    from sidlake.generative.exports.release_files import Kind

__all__ = ["export"]

export = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write a release's SIDs as the files that others read.")

OutputArgument = Annotated[Path, typer.Argument(help="A folder that is not there yet.")]
ReleaseOption = Annotated[str, typer.Option("--release", help="A release (r000003), a pin or current.")]


@export.command()
def static(
    output: OutputArgument,
    release: ReleaseOption = "current",
    dense_levels: Annotated[int, typer.Option(min=1, help="Levels with a table of all codes.")] = 2,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Write the trie as STATIC's decoders read it (arXiv 2602.22647): the arrays of its build_static_index, as .npz.

    Example: sidlake export static static-index
    """
    _export("static", output, release, warehouse, as_json, dense_levels=dense_levels)


@export.command()
def grid(
    output: OutputArgument,
    release: ReleaseOption = "current",
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Write the codes as a tensor [levels, items], for GRID and NVIDIA's recsys-examples.

    It is a safetensors file, since a .pt file is a pickle. Who reads .pt makes it once:
    torch.save(safetensors.torch.load_file("item_sids.safetensors")["codes"], "item-sid-mapping.pt")

    Example: sidlake export grid grid-sids
    """
    _export("grid", output, release, warehouse, as_json)


@export.command("index-json")
def index_json(
    output: OutputArgument,
    release: ReleaseOption = "current",
    numbered: Annotated[bool, typer.Option("--numbered", help="Number items, as LETTER does, beside a list of ids.")] = False,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Write item -> tokens as .index.json, for MiniOneRec, LETTER and LC-Rec.

    Example: sidlake export index-json letter --numbered
    """
    _export("index-json", output, release, warehouse, as_json, numbered=numbered)


@export.command("hf-tokens")
def hf_tokens(
    output: OutputArgument,
    release: ReleaseOption = "current",
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Write the tokens to add to a language model, and a Hugging Face tokenizer of SIDs alone.

    Example: sidlake export hf-tokens sid-tokenizer
    """
    _export("hf-tokens", output, release, warehouse, as_json)


@export.command("hf-dataset")
def hf_dataset(
    output: OutputArgument,
    release: ReleaseOption = "current",
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Write items and histories as a folder that datasets.load_dataset reads.

    Example: sidlake export hf-dataset sid-dataset
    """
    _export("hf-dataset", output, release, warehouse, as_json)


@export.command()
def feast(
    output: Annotated[Path, typer.Argument(help="A folder: a new one, or one that this command has written.")],
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Write what each item's SID was from when on as a Feast repository, or bring one up to date; then, there: feast apply.

    Example: sidlake export feast feast-repo
    """
    from sidlake.generative.exports.feast_repo import write_feast_repo

    _told("feast", *write_feast_repo(open_warehouse(warehouse), output), as_json=as_json)


def _export(
    kind: Kind,
    output: Path,
    release: str,
    warehouse: Path,
    as_json: bool,
    *,
    dense_levels: int = 2,
    numbered: bool = False,
) -> None:
    from sidlake.generative.exports.release_files import export_release

    lake = open_warehouse(warehouse)
    name, files = export_release(lake, kind, output, release=release, dense_levels=dense_levels, numbered=numbered)
    _told(kind, name, files, as_json=as_json)


def _told(kind: str, name: str, files: list[Path], *, as_json: bool) -> None:
    if as_json:
        print_json({"release": name, "files": [str(path) for path in files]})
        return
    for path in files:
        print_line(f"{path}: {path.stat().st_size:,} bytes")
    print_line(f"{kind} of release {name}")
