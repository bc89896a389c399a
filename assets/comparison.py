"""One asset per method beside the recipe: semantic IDs made that way on the same catalogue, measured, and not published.

The assets need nothing of each other and are part of no scheduled job: materialise them when a method is to be chosen. The job
`compare` runs all.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg

from sidlake.assets.evidence import as_metadata
from sidlake.assets.failures import IO_RETRIES, failing_fast
from sidlake.assets.ownership import CODE_VERSION, OWNERS
from sidlake.assets.resources import Settings, SidlakeResource
from sidlake.pipelines.compare import compare_method, method_paths
from sidlake.pipelines.progress import Progress

__all__ = ["comparisons_for"]

GROUP = "comparison"


def comparisons_for(settings: Settings) -> list[dg.AssetsDefinition]:
    """Return an asset ``comparison/<method>`` for every method in the folder beside the recipe; none where there is no folder."""
    return [_asset(path) for path in method_paths(Path(settings.recipe))]


def _asset(method: Path) -> dg.AssetsDefinition:
    asset = dg.asset(
        name=method.stem.replace("-", "_"),
        key_prefix=GROUP,
        group_name=GROUP,
        owners=OWNERS,
        kinds={"numpy", "torch", "deltalake"},
        code_version=CODE_VERSION,
        description=f"Semantic IDs by the method {method.stem} on the recipe's catalogue: measured, not published.",
        pool=GROUP,
        retry_policy=IO_RETRIES,
    )
    return asset(_compute(method))


def _compute(method: Path) -> Callable[..., dg.MaterializeResult[Any]]:
    def compute(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
        with failing_fast():
            row = compare_method(Path(sidlake.recipe), method, Path(sidlake.warehouse), progress=Progress(log=context.log.info))
        known = {name: value for name, value in asdict(row).items() if value is not None}
        return dg.MaterializeResult(metadata=as_metadata(known))

    return compute
