"""One asset per method beside the recipe, or that is installed with sidlake: semantic IDs made that way on the same catalogue.

They are measured and not published. The assets need nothing of each other and are part of no scheduled job: materialise them when
a method is to be chosen. The job `compare` runs all.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg

from sidlake.assets.evidence import as_metadata
from sidlake.assets.failures import IO_RETRIES, failing_fast
from sidlake.assets.ownership import CODE_VERSION, OWNERS
from sidlake.assets.resources import SidlakeResource
from sidlake.assets.settings import Settings
from sidlake.pipelines.compare import compare_method, method_paths
from sidlake.pipelines.progress import Progress

__all__ = ["comparisons_for"]

GROUP = "comparison"


def comparisons_for(settings: Settings) -> list[dg.AssetsDefinition]:
    """Return an asset ``comparison/<method>`` for every method beside the recipe, or where none is, for the installed ones."""
    return [_asset(path, settings) for path in method_paths(Path(settings.recipe))]


def _asset(method: Path, settings: Settings) -> dg.AssetsDefinition:
    asset = dg.asset(
        key=settings.key(GROUP, method.stem.replace("-", "_")),
        group_name=settings.named(GROUP),
        owners=OWNERS,
        kinds={"numpy", "torch", "deltalake"},
        code_version=CODE_VERSION,
        description=f"Semantic IDs by the method {method.stem} on the recipe's catalogue: measured, not published.",
        pool=settings.named(GROUP),
        retry_policy=IO_RETRIES,
        required_resource_keys={settings.resource},
    )
    return asset(_compute(method, settings))


def _compute(method: Path, settings: Settings) -> Callable[..., dg.MaterializeResult[Any]]:
    def compute(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        sidlake: SidlakeResource = getattr(context.resources, settings.resource)
        with failing_fast():
            say, memory = Progress(log=context.log.info), sidlake.memory_limit()
            row = compare_method(Path(sidlake.recipe), method, Path(sidlake.warehouse), progress=say, memory=memory)
        known = {name: value for name, value in asdict(row).items() if value is not None}
        return dg.MaterializeResult(metadata=as_metadata(known))

    return compute
