"""Digests of files outside the warehouse: taken once, and again where anything tells that a file is another."""

from __future__ import annotations

import hashlib
import json
import os
import time

import pytest

from sidlake.pipelines.ingest.known_files import KnownFiles
from sidlake.pipelines.ingest.step import ingest_sources
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.warehouse.tables import Warehouse

HOUR = 3600 * 10**9


def later():
    return time.time_ns() + HOUR


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def memory(tmp_path, path):
    """What is remembered of the file, with a digest that is not its own: whoever returns it has not read the file."""
    memory = tmp_path / "cache" / "files.json"
    known = KnownFiles(memory, clock=later)
    assert known.digest(path) == hashlib.sha256(b"one").hexdigest()
    known.remember()
    forge(memory)
    return memory


def forge(memory):
    known = json.loads(memory.read_text())
    memory.write_text(json.dumps({name: [mark, "remembered"] for name, (mark, _) in known.items()}))


def test_a_file_that_is_as_it_was_is_not_read(path, memory):
    assert KnownFiles(memory, clock=later).digest(path) == "remembered"
    assert KnownFiles(memory, clock=later, reread=True).digest(path) == hashlib.sha256(b"one").hexdigest()


@pytest.mark.parametrize("content", [b"two", b"longer"])
def test_a_file_that_was_written_again_is_read_also_with_its_old_date(path, memory, content):
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert KnownFiles(memory, clock=later).digest(path) == hashlib.sha256(content).hexdigest()


def test_a_file_that_another_took_the_place_of_is_read(path, memory, tmp_path):
    other = tmp_path / "b.csv"
    other.write_bytes(b"two")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert KnownFiles(memory, clock=later).digest(path) == hashlib.sha256(b"two").hexdigest()


def test_a_file_written_just_now_is_not_remembered(path, tmp_path):
    written = max(path.stat().st_mtime_ns, path.stat().st_ctime_ns)
    memory = tmp_path / "files.json"
    for after, remembered in ((10**9, False), (3 * 10**9, True)):
        known = KnownFiles(memory, clock=lambda after=after: written + after)
        known.digest(path)
        known.remember()
        assert memory.exists() is remembered


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', '{"a": [1, 2, 3]}', "null"])
def test_a_memory_that_says_nothing_sensible_is_no_memory(path, memory, content):
    memory.write_text(content)
    assert KnownFiles(memory, clock=later).digest(path) == hashlib.sha256(b"one").hexdigest()


def test_files_that_were_not_seen_are_forgotten(path, memory, tmp_path):
    other = tmp_path / "b.csv"
    other.write_bytes(b"two")
    known = KnownFiles(memory, clock=later)
    known.digest(other)
    known.remember()
    assert list(json.loads(memory.read_text())) == [str(other)]


RECIPE = """
name = "small"
[sources.items]
path = "items.csv"
[items]
source = "items"
item_id = "id"
title = "name"
"""


def test_a_run_asks_what_is_known_of_its_sources_and_with_reread_their_content(tmp_path):
    (tmp_path / "items.csv").write_text("id,name\na,cup\nb,jug\n")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    lake = Warehouse.create_or_open(tmp_path / "lake")
    recipe = load_recipe(tmp_path / "recipe.toml")

    def ingested(**options):
        ctx = RunContext.open(lake, recipe, run_id=new_run_id(), job="refresh", **options)
        ingest_sources(ctx)
        return ctx.state.inputs["items"]["sha256"]

    true = hashlib.sha256((tmp_path / "items.csv").read_bytes()).hexdigest()
    memory = tmp_path / "lake" / "cache" / "files.json"
    known = KnownFiles(memory, clock=later)
    known.digest(tmp_path / "items.csv")
    known.remember()
    forge(memory)
    assert (ingested(), ingested(reread=True)) == ("remembered", true)
