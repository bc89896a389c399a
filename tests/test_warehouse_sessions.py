"""Sessions: they share a database and nothing in it, and a forked child has its own."""

import os

import pytest

from sidlake.errors import StorageError
from sidlake.warehouse.sessions import session
from sidlake.warehouse.tables import Warehouse


@pytest.fixture
def warehouse(tmp_path):
    return Warehouse.create_or_open(tmp_path)


def test_what_a_session_creates_is_neither_seen_by_another_nor_left_behind(warehouse):
    with session(warehouse) as one, session(warehouse) as two:
        one.execute("CREATE TEMPORARY TABLE items AS SELECT 1 AS one")
        two.execute("CREATE TEMPORARY TABLE items AS SELECT 2 AS two")
        assert (one.execute("FROM items").fetchall(), two.execute("FROM items").fetchall()) == ([(1,)], [(2,)])
    with pytest.raises(StorageError, match="items does not exist"), session(warehouse) as three:
        three.execute("FROM items")


def test_what_duckdb_raises_in_a_session_names_the_warehouse(warehouse):
    with pytest.raises(StorageError, match=str(warehouse.url)), session(warehouse) as connection:
        connection.execute("FROM read_parquet('nowhere.parquet')")


def test_a_forked_child_has_a_database_of_its_own(warehouse):
    with session(warehouse) as connection:
        connection.execute("SELECT 1")
    child = os.fork()
    if not child:
        with session(warehouse) as connection:
            os._exit(connection.execute("SELECT 7").fetchall()[0][0])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
