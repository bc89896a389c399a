"""One limit of memory: sizes are read one way, the default is what the machine or its cgroup has, and DuckDB obeys its share."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import warehouse_sample as sample
from typer.testing import CliRunner

from sidlake.cli.app import app
from sidlake.errors import MemoryTooSmall, RecipeError
from sidlake.memory import FLOOR, duckdb_share, machine_memory, parse_size, refuse_too_small
from sidlake.pipelines.recipe import Recipe
from sidlake.pipelines.settings.parsing import parse_dataclass
from sidlake.warehouse.content import content_hash
from sidlake.warehouse.sessions import session
from sidlake.warehouse.tables import Warehouse

MIB, GIB = 2**20, 2**30
SORTS = "SELECT sum(i) FROM (SELECT i, md5(i::VARCHAR) AS m FROM range(1500000) t(i) ORDER BY m LIMIT 1400000)"
"""A sort of 80 MB, none of which DuckDB can leave out."""


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 * GIB), ("512MiB", 512 * MIB), ("3000MB", 3 * 10**9), ("1.5 gib", 3 * GIB // 2), ("1TB", 10**12)],
)
def test_a_size_is_a_number_and_a_unit(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["4", "lots", "-1GiB", "", "4 G", "4KiB", "GiB", "1e3GiB", "nan GiB", "4GiB 4GiB"])
def test_what_is_no_size_is_refused_with_what_is_accepted(text):
    with pytest.raises(ValueError, match="such as 4GiB, 512MiB or 3000MB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["0GiB", "511MiB", "0.4GiB"])
def test_a_limit_below_what_the_program_takes_is_refused(text):
    with pytest.raises(ValueError, match="below 512 MiB"):
        parse_size(text)
    assert parse_size("512MiB") == FLOOR


def test_a_recipe_and_the_command_line_refuse_the_same_sizes_in_the_same_words(tmp_path):
    minimal = {"name": "a", "sources": {"a": {"path": "a.csv"}}, "items": {"source": "a", "item_id": "id", "title": "name"}}
    assert parse_dataclass(Recipe, minimal | {"memory": "2GiB"}).memory_limit == 2 * GIB
    with pytest.raises(RecipeError, match=r"memory: .*such as 4GiB.*'lots'"):
        parse_dataclass(Recipe, minimal | {"memory": "lots"})
    done = CliRunner().invoke(app, ["run", "refresh", "--memory", "lots", "--warehouse", str(tmp_path)])
    assert done.exit_code == 2
    assert "such as 4GiB" in " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("lines", "file", "text", "limit"),
    [
        ("0::/a/b\n", "sys/fs/cgroup/a/b/memory.max", "3000000000", 3_000_000_000),
        ("0::/a/b\n", "sys/fs/cgroup/a/memory.max", "2000000000", 2_000_000_000),  # of the group above
        ("0::/a/b\n", "sys/fs/cgroup/memory.max", "1000000000", 1_000_000_000),  # as a container sees its own
        ("9:cpu:/\n4:memory:/x\n0::/\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "4000000", 4_000_000),
        ("0::/a\n", "sys/fs/cgroup/a/memory.max", "max", None),
        ("4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712", None),
        ("1:cpu:/a\n", "sys/fs/cgroup/cpu/a/memory.limit_in_bytes", "4000000", None),
    ],
)
def test_the_machine_has_what_its_cgroup_allows(tmp_path, lines, file, text, limit):
    whole = machine_memory(tmp_path)  # nothing there: the machine's own
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(lines)
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text + "\n")
    assert machine_memory(tmp_path) == (limit or whole)
    assert whole > 4_000_000


def test_a_step_that_needs_more_is_refused_with_both_numbers_and_the_remedy():
    refuse_too_small(GIB, GIB, step="fuse", why="vectors")
    with pytest.raises(MemoryTooSmall, match=r"step fuse needs 2.5 GiB of memory \(vectors\), the limit is 1.0 GiB; .*--memory"):
        refuse_too_small(GIB, 5 * GIB // 2, step="fuse", why="vectors")


def limited(root, memory):
    warehouse = Warehouse.create_or_open(root)
    warehouse.memory = memory
    return warehouse


def test_sessions_hold_their_share_of_the_limit_of_their_own_warehouse(tmp_path):
    asked = "SELECT current_setting('memory_limit')"
    for memory, shown in ((FLOOR, "256.0 MiB"), (6 * GIB, "3.0 GiB")):
        with session(limited(tmp_path, memory)) as connection:
            assert connection.execute(asked).fetchall() == [(shown,)]
    assert duckdb_share(6 * GIB) == 3 * GIB


def test_a_query_beyond_its_share_spills_and_one_that_cannot_is_refused_by_name(tmp_path):
    found = []
    for memory in (200 * MIB, 4 * GIB):
        with session(limited(tmp_path, memory)) as connection:
            found.append(connection.execute(SORTS).fetchall())
    assert found[0] == found[1]
    few = limited(tmp_path, 30 * MIB)
    with pytest.raises(MemoryTooSmall, match="DuckDB cannot go on within 15 MiB"), session(few) as connection:
        connection.execute(SORTS)


SPILLS = f"""
import resource, sys
from sidlake.errors import StorageError
from sidlake.warehouse.sessions import session
from sidlake.warehouse.tables import Warehouse
warehouse = Warehouse.create_or_open(sys.argv[1])
warehouse.memory = {200 * MIB}
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    with session(warehouse) as connection:
        connection.execute("{SORTS}")
except StorageError as error:
    print(error)
"""


def test_a_full_disk_of_temporary_files_is_told_from_a_damaged_table(tmp_path):
    done = subprocess.run([sys.executable, "-c", SPILLS, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "DuckDB cannot spill to" in done.stdout
    assert "set TMPDIR to a larger disk" in done.stdout
    assert "damaged" not in done.stdout


def test_the_content_hash_does_not_depend_on_the_limit(tmp_path):
    num = 150_000
    names = [f"{number:06d}-{'x' * 40}" for number in np.random.default_rng(0).permutation(num).tolist()]
    warehouse = Warehouse.create_or_open(tmp_path)
    warehouse.overwrite("items", sample.items(names, title="some thing " * 10), run_id="run")
    hashes = {content_hash(limited(tmp_path, memory), {"items": 0}, "g1") for memory in (240 * MIB, 16 * GIB)}
    assert len(hashes) == 1
    assert pa.total_allocated_bytes() < GIB
