"""Whether Spark reads what a release publishes: each table at the release's version, row for row, by Spark's own Delta reader.

    python benchmarks/spark_reads.py [--warehouse lake] [--programs FOLDER] [--json]

Installs PySpark into `--programs` (default: .venv/spark) and fetches Delta's jars by Maven, both once; needs Java 17 and mvn. Spark
reads each table with ``versionAsOf`` and writes it as Parquet, which DuckDB compares with the table as sidlake reads it: `missing`
and `surplus` are rows that only one of the two has, and have to be 0.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

from sidlake.warehouse.releases import get
from sidlake.warehouse.sessions import session
from sidlake.warehouse.sql import literal, table_at
from sidlake.warehouse.tables import Warehouse

ROOT = Path(__file__).resolve().parent.parent
SPARK, DELTA = "pyspark==4.2.0", "4.4.0"
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>sidlake</groupId><artifactId>jars</artifactId><version>1</version><dependencies><dependency>
<groupId>io.delta</groupId><artifactId>delta-spark_4.2_2.13</artifactId><version>{version}</version></dependency></dependencies></project>
"""
READ = """
import glob, json, sys
from pyspark.sql import SparkSession

root, tables, jars, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]
settings = {
    "spark.jars": ",".join(glob.glob(jars + "/*.jar")), "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension", "spark.sql.session.timeZone": "UTC",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog", "spark.sql.shuffle.partitions": "4",
    "spark.databricks.delta.snapshotPartitions": "2",
}
builder = SparkSession.builder.master("local[2]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
for table, version in tables.items():
    spark.read.format("delta").option("versionAsOf", version).load(f"{root}/delta/{table}").write.parquet(f"{out}/{table}")
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warehouse", type=Path, default=ROOT / "lake")
    parser.add_argument("--programs", type=Path, default=ROOT / ".venv" / "spark")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    install(given.programs)
    warehouse = Warehouse(given.warehouse)
    release = get(warehouse)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sidlake-spark-") as folder:
        words = [str(Path(warehouse.root).resolve()), json.dumps(release.tables), str(given.programs / "jars"), folder]
        subprocess.run([given.programs / "bin" / "python", "-c", READ, *words], check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - start
        rows = [compared(warehouse, table, version, Path(folder)) for table, version in sorted(release.tables.items())]
    result = {"machine": machine(), "spark": SPARK, "delta": DELTA, "release": release.release_id, "seconds": round(seconds, 1)}
    if given.json:
        print(json.dumps(result | {"tables": rows}, indent=1))
    else:
        print(
            *(f"{row['table']:<16} {row['rows']:>10,} rows, missing {row['missing']}, surplus {row['surplus']}" for row in rows),
            sep="\n",
        )
    return int(any(row["missing"] or row["surplus"] for row in rows))


def install(programs: Path) -> None:
    """Make `programs` an environment with PySpark, and Delta's jars in its folder ``jars``, where they are not there."""
    if not (programs / "bin" / "spark-submit").exists():
        subprocess.run([sys.executable, "-m", "venv", programs], check=True)
        subprocess.run([programs / "bin" / "python", "-m", "pip", "install", "--quiet", SPARK], check=True)
    if not (programs / "jars").exists():
        with tempfile.TemporaryDirectory() as folder:
            pom = Path(folder, "pom.xml")
            pom.write_text(POM.format(version=DELTA), encoding="utf-8")
            copy = [
                "dependency:copy-dependencies",
                "-DincludeGroupIds=io.delta",
                f"-DoutputDirectory={programs.resolve() / 'jars'}",
            ]
            subprocess.run(["mvn", "-q", "-B", "-f", pom, *copy], check=True, stdout=sys.stderr)


def compared(warehouse: Warehouse, table: str, version: int, folder: Path) -> dict[str, object]:
    """Return how many rows of a table there are, and how many only we and only Spark read."""
    with session(warehouse) as connection:
        columns = connection.sql(table_at(warehouse, table, version)).columns
        names = ", ".join(f'"{name}"' for name in columns)
        connection.execute(f"CREATE TEMP TABLE ours AS SELECT {names} FROM ({table_at(warehouse, table, version)})")
        connection.execute(
            f"CREATE TEMP TABLE theirs AS SELECT {names} FROM read_parquet({literal(str(folder / table / '*.parquet'))})"
        )
        counted = [
            connection.sql(f"SELECT count(*) FROM (FROM {one} EXCEPT ALL FROM {other})").fetchall()[0][0]
            for one, other in (("ours", "theirs"), ("theirs", "ours"))
        ]
        rows = connection.sql("SELECT count(*) FROM ours").fetchall()[0][0]
    return {"table": table, "rows": rows, "missing": counted[0], "surplus": counted[1]}


if __name__ == "__main__":
    raise SystemExit(main())
