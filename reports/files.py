"""Writing the report of a release to a file: complete or not at all, and never larger than three megabytes.

Not done here: what the page says (`report`, `report_page`), and when a run writes it (`report_step`).
"""

from __future__ import annotations

from pathlib import Path

from sidlake.errors import NotFoundError
from sidlake.reports.report import report_of
from sidlake.warehouse.places.storage import disk_errors
from sidlake.warehouse.tables import Warehouse
from sidlake.whole_files import replacing

__all__ = ["MAX_BYTES", "report_path", "write_report"]

MAX_BYTES = 3_000_000
_SHOWN = (17_000, 5000, 1000)  # prefixes and items of the tree: fewer where texts are so long that the page would be too


def report_path(warehouse: Warehouse, release_id: str) -> Path:
    """Return where the report of a release lies by default, made or not."""
    return warehouse.root / "reports" / f"{release_id}.html"


def write_report(
    warehouse: Warehouse,
    release_id: str = "current",
    *,
    against: str | None = None,
    root: str | Path | None = None,
    output: Path | None = None,
) -> dict[str, object]:
    """Write the page of a release and return its path, release, verdict and bytes; a reader never sees half a page.

    Without `output` it becomes ``reports/<release>.html`` in the warehouse; of one in an object store this machine's copy is named.
    Raises `NotFoundError` for a release that is not there and where matplotlib is not installed, `StorageError` where the file
    cannot be written.
    """
    try:
        from sidlake.reports.page import page_of  # draws with matplotlib, which is an extra
    except ModuleNotFoundError as error:
        msg = f"the report needs {error.name}, which is not installed: pip install 'sidlake[pipeline]', then: sidlake report"
        raise NotFoundError(msg, module=error.name) from error
    for max_shown in _SHOWN:
        report = report_of(warehouse, release_id, against=against, root=root, max_shown=max_shown)
        page = page_of(report).encode()
        if len(page) < MAX_BYTES:
            break
    path = output or report_path(warehouse, report.release.release_id)
    with disk_errors(path), replacing(path) as beside:
        beside.write_bytes(page)
    if output is None:
        warehouse.keep(path)
    return {"path": str(path), "release": report.release.release_id, "verdict": report.verdict, "bytes": len(page)}
