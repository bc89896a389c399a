"""Fixtures that cost seconds, made once: a small real shop, run through the whole pipeline by the command line."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from object_store_sample import served
from postgres_sample import postgres as postgres_server
from shop_sample import small_shop

from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.warehouse.tables import Warehouse

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True)
class Shop:
    """A recipe, the warehouse it filled, and the command line to use it with."""

    recipe: Path
    warehouse: Path

    def sidlake(self, *arguments, check=True, **environment):
        """Run the command line as a user would, in its own process."""
        command = [str(Path(sys.executable).parent / "sidlake"), *arguments]
        settings = {"SIDLAKE_WAREHOUSE": str(self.warehouse), "SIDLAKE_RECIPE": str(self.recipe)}
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings | environment, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    def run(self, job, *, warehouse=None, recipe=None, engine=None):
        """Run a job in this process, which saves ten seconds of imports; return the steps' reports."""
        lake = Warehouse.create_or_open(warehouse or self.warehouse)
        ctx = RunContext.open(lake, load_recipe(recipe or self.recipe), run_id=new_run_id(), job=job, engine=engine)
        return run_job(ctx)


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A shop of 200 items and 150 users after the retrain job. Tests only read it."""
    folder = tmp_path_factory.mktemp("shop")
    made = Shop(small_shop(folder / "source"), folder / "warehouse")
    made.run("retrain")
    return made


@pytest.fixture
def shop_copy(shop, tmp_path):
    """A copy of `shop`, for tests that change it."""
    shutil.copytree(shop.recipe.parent, tmp_path / "source")
    shutil.copytree(shop.warehouse, tmp_path / "warehouse")
    return Shop(tmp_path / "source" / shop.recipe.name, tmp_path / "warehouse")


@pytest.fixture
def fresh_shop(tmp_path):
    """A shop that has not run yet, for tests that change it."""
    return Shop(small_shop(tmp_path / "source"), tmp_path / "warehouse")


@pytest.fixture(scope="module")
def object_store(tmp_path_factory):
    """The environment of processes that use an S3 server on this machine, and this process's own while the module's tests run."""
    folder = tmp_path_factory.mktemp("store")
    with served(folder / "server.log") as names, pytest.MonkeyPatch.context() as patch:
        for name, value in {**names, "SIDLAKE_CACHE": str(folder / "cache")}.items():
            patch.setenv(name, value)
        yield names


@pytest.fixture(scope="session")
def postgres():
    """The address of a database on a Postgres server of this test process."""
    with postgres_server() as address:
        yield address
