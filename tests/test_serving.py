"""The HTTP service, in a process of its own: what it answers, how it follows the warehouse, and what it says to bad requests."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import warehouse_sample as sample
from serving_sample import Client, serving

from sidlake.errors import NotFoundError, StaleReleaseError
from sidlake.serving.follower import Follower
from sidlake.serving.recommender import fitting, read_model
from sidlake.tokenizers.semantic_id import format_sids, parse_sid
from sidlake.warehouse import catalog
from sidlake.warehouse.holds import lift
from sidlake.warehouse.keep.pins import pin
from sidlake.warehouse.releases import current, get, publish, rollback
from sidlake.warehouse.tables import Warehouse


def published(warehouse, count, **changes):
    """Publish `count` items and return the release."""
    latest = current(warehouse)
    tables = sample.write(warehouse, count, **changes)
    draft = sample.draft(tables, generation=changes.get("generation", "g1"))
    return publish(warehouse, draft, expected_parent=latest.release_id if latest else None)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Twelve items, released; tests only read it."""
    warehouse = Warehouse.create_or_open(tmp_path_factory.mktemp("served") / "lake")
    published(warehouse, 12)
    return warehouse


@pytest.fixture(scope="module")
def client(lake, tmp_path_factory):
    """A client of a service over `lake`."""
    with serving(lake.root, log=tmp_path_factory.mktemp("log") / "serve.log") as port:
        yield Client(port)


@pytest.fixture
def warehouse(tmp_path):
    """Twelve items, released, for tests that publish more."""
    made = Warehouse.create_or_open(tmp_path / "lake")
    published(made, 12)
    return made


@pytest.fixture(scope="module")
def shop_client(shop, tmp_path_factory):
    """A client of a service over a real shop with a trained model."""
    with serving(shop.warehouse, log=tmp_path_factory.mktemp("log") / "serve.log") as port:
        yield Client(port)


def test_items_and_sids_are_those_of_the_views_that_analysts_read(shop, shop_client):
    rows = catalog.query(Warehouse(shop.warehouse), "select item_id, sid, codes, title from items_with_sids").to_pylist()
    assert len(rows) == 200
    for row in rows:
        expected = row | {"release": "r000001", "retired_at": None}
        assert shop_client.get("items", row["item_id"]) == (200, expected, "r000001")
        assert shop_client.get("sids", row["sid"]) == (200, expected, "r000001")


def test_pages_of_a_prefix_are_those_of_the_views_and_overlap_nowhere(shop, shop_client):
    sql = "select sid, item_id, title from items_with_sids order by codes"
    rows = catalog.query(Warehouse(shop.warehouse), sql).to_pylist()
    for prefix in ("", *sorted({row["sid"][: row["sid"].index(">") + 1] for row in rows})):
        expected, found, after = [row for row in rows if row["sid"].startswith(prefix)], [], None
        while True:
            _, page, _ = shop_client.get("prefix", prefix, limit=7, **({"after": after} if after else {}))
            assert len(page["items"]) <= 7
            found += page["items"]
            after = page["next"]
            if after is None:
                break
        assert found == expected


def test_the_release_says_what_it_is_and_which_model_answers(shop, shop_client):
    release = get(Warehouse(shop.warehouse))
    _, about, _ = shop_client.get("release")
    (checkpoint,) = (path.name for path in (shop.warehouse / "checkpoints").iterdir() if not path.name.startswith("."))
    assert about["model"] == {"checkpoint": checkpoint, "trained_on": "r000001"}
    assert (about["release"], about["num_items"], about["following"]) == ("r000001", 200, "current")
    assert (about["content_hash"], about["generation"]) == (release.content_hash, release.generation)
    assert shop_client.get("health") == (200, {"release": "r000001", "status": "ok", "problem": None}, "r000001")


def test_recommendations_are_those_that_the_trainer_wrote_for_the_same_histories(shop, shop_client):
    lake = Warehouse(shop.warehouse)
    written = lake.read("recommendations").to_pylist()
    sequences = lake.read("user_sequences", version=get(lake).tables["user_sequences"]).to_pylist()
    histories = {row["user_id"]: row["item_ids"] for row in sequences if row["split"] == "train"}
    for row in sequences:  # what the trainer reads for a test user: the whole training history and the item after it
        if row["split"] == "valid":
            histories[row["user_id"]] = [*histories[row["user_id"]], row["target"]]
    for user in sorted({row["user_id"] for row in written})[:10]:
        expected = [
            (row["item_id"], row["score"]) for row in sorted(written, key=lambda row: row["rank"]) if row["user_id"] == user
        ]
        status, answer, release = shop_client.post("/recommend", {"history": histories[user], "k": 10})
        assert (status, release, answer["ignored"]) == (200, "r000001", [])
        assert [one["item_id"] for one in answer["items"]] == [item for item, _ in expected]
        assert [one["score"] for one in answer["items"]] == pytest.approx([score for _, score in expected], abs=1e-3)
        assert {one["item_id"]: one["sid"] for one in answer["items"]} == {
            one["item_id"]: shop_client.get("items", one["item_id"])[1]["sid"] for one in answer["items"]
        }


def test_recommending_by_address_and_by_body_is_one(shop, shop_client):
    first, second = (shop_client.get("prefix", "", limit=2)[1]["items"][place]["item_id"] for place in (0, 1))
    by_body = shop_client.post("/recommend", {"history": [first, "nobody", second], "k": 5, "exclude_seen": True})
    assert shop_client.ask(f"/recommend?item=%20{first}%09&item=nobody&item={second}&k=5&exclude_seen=true") == by_body
    assert by_body[1]["ignored"] == ["nobody"]
    assert {first, second}.isdisjoint(one["item_id"] for one in by_body[1]["items"])


def test_a_history_that_the_model_knows_nothing_of_is_refused(shop_client):
    status, answer, _ = shop_client.post("/recommend", {"history": ["nobody"]})
    assert (status, "'nobody'" in answer["error"], "r000001" in answer["error"]) == (422, True, True)


def test_items_that_have_left_are_never_recommended_and_the_next_best_take_their_places(shop):
    lake = Warehouse(shop.warehouse)
    model = read_model(lake, fitting(lake, get(lake)))
    history = [row["item_id"] for row in lake.read("items", version=get(lake).tables["items"]).slice(0, 3).to_pylist()]
    in_force = model.in_force(lake, get(lake))
    assert in_force.all()
    everything = model.recommend(history, k=200, exclude_seen=False, in_force_N=in_force).items
    order = {one.item_id: place for place, one in enumerate(sorted(everything, key=lambda one: parse_sid(one.sid)))}
    gone = {one.item_id for one in everything[:5]}
    for item_id in gone:
        in_force[order[item_id]] = False
    left = model.recommend(history, k=10, exclude_seen=False, in_force_N=in_force).items
    assert left == [one for one in everything if one.item_id not in gone][:10]


def test_the_model_of_the_same_content_is_asked_before_a_later_one(warehouse):
    published(warehouse, 13)
    rollback(warehouse, "r000001", "test")
    for name in ("r000001-aa", "r000002-bb"):
        folder = warehouse.checkpoints_dir / name
        folder.mkdir(parents=True)
        about = {"release_id": name[:7], "generation": "g1", "codebook_hash": get(warehouse).codebook_hash}
        (folder / "checkpoint.json").write_text(json.dumps(about))
    assert fitting(warehouse, get(warehouse)).name == "r000001-aa"
    assert fitting(warehouse, get(warehouse, "r000002")).name == "r000002-bb"
    assert fitting(warehouse, get(warehouse), named="r000002-bb").name == "r000002-bb"
    lift(warehouse, current(warehouse), reason="test")
    published(warehouse, 12, generation="g2", skip=20)
    with pytest.raises(StaleReleaseError, match=r"r000001-aa of generation g1, r000002-bb of generation g1; train"):
        fitting(warehouse, get(warehouse))
    with pytest.raises(NotFoundError, match=r"no checkpoint 'x' in .* \(there are: r000001-aa, r000002-bb\)"):
        fitting(warehouse, get(warehouse), named="x")


def test_a_checkpoint_of_another_generation_is_refused_by_name(shop_copy, tmp_path):
    (info,) = (shop_copy.warehouse / "checkpoints").glob("r*/checkpoint.json")
    values = json.loads(info.read_text())
    info.write_text(json.dumps(values | {"generation": "g9999"}))
    with serving(shop_copy.warehouse, log=tmp_path / "serve.log") as port:
        client = Client(port)
        status, answer, _ = client.post("/recommend", {"history": ["85123A"]})
        assert status == 503
        assert f"{info.parent.name} of generation g9999" in answer["error"]
        assert "sidlake run retrain" in answer["error"]
        info.write_text(json.dumps(values))  # a model that comes later is found without a new release
        assert soon(lambda: client.get("release")[1]["model"]) == {"checkpoint": info.parent.name, "trained_on": "r000001"}


def test_a_checkpoint_that_is_damaged_costs_recommendations_alone(shop_copy, tmp_path):
    (weights,) = (shop_copy.warehouse / "checkpoints").glob("r*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with serving(shop_copy.warehouse, log=tmp_path / "serve.log") as port:
        client = Client(port)
        status, answer, _ = client.post("/recommend", {"history": ["85123A"]})
        assert (status, "train again" in answer["error"]) == (503, True)
        assert client.get("prefix", "")[0] == 200


def test_without_a_model_recommending_says_what_to_do(client):
    status, answer, release = client.post("/recommend", {"history": ["item '000\""]})
    assert (status, release) == (503, "r000001")
    assert "sidlake run retrain" in answer["error"]


ODD_IDS = [
    "",
    "nobody",
    "a/b",
    "a//b/",
    "..",
    "\x00",
    "a\nb",
    "\n",
    "é" * 9,
    "😀",
    "%41",
    "a?b#c&d",
    "x" * 20_000,
    "'; DROP TABLE items; --",
]


@pytest.mark.parametrize("item_id", ODD_IDS, ids=lambda item_id: ascii(item_id[:20]))
def test_an_item_that_is_not_there_is_a_404_in_a_sentence_whatever_it_is_called(client, item_id):
    status, answer, release = client.get("items", item_id)
    assert (status, release, answer["release"]) == (404, "r000001", "r000001")
    assert "release r000001" in answer["error"]
    assert repr(item_id)[:40] in answer["error"]
    assert len(answer["error"]) < 200


def test_an_item_is_found_by_any_id_that_a_source_may_give(tmp_path, monkeypatch):
    names = ["a/b", "a//b/", "..", "a\nb", "é😀", "%41", "a?b#c&d", "x" * 5000, "\x01", "q\"'\\"]
    monkeypatch.setattr(sample, "item_ids", lambda count: names[:count])
    warehouse = Warehouse.create_or_open(tmp_path / "lake")
    published(warehouse, len(names))
    with serving(warehouse.root, log=tmp_path / "serve.log") as port:
        client = Client(port)
        found = {name: client.get("items", name) for name in names}
        assert {name: (status, answer["item_id"], answer["title"]) for name, (status, answer, _) in found.items()} == {
            name: (200, name, f"thing {name}") for name in names
        }


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/items/%FF", 400, "not UTF-8"),
        ("/items/%ED%A0%80", 400, "not UTF-8"),
        ("/prefix/?after=%FF", 400, "not UTF-8"),
        ("/sids/x", 422, "'x' is not a semantic ID"),
        ("/sids/%3Ca_01%3E", 422, "is not a semantic ID"),
        ("/sids/%3Ca_1%3E%0A", 422, "is not a semantic ID"),
        ("/sids/%3Ca_" + "9" * 5000 + "%3E", 422, "is not a semantic ID"),
        ("/sids/%3Ca_1%3E", 404, "no item has the SID"),
        ("/sids/%3Ca_99999999999%3E", 404, "no item has the SID"),
        ("/prefix/?limit=0", 422, "limit: Input should be greater than or equal to 1"),
        ("/prefix/?limit=1001", 422, "less than or equal to 1000"),
        ("/prefix/?limit=many", 422, "'many'"),
        ("/prefix/?after=x", 422, "'x' is not a semantic ID"),
        ("/prefix/%3Cb_1%3E", 422, "is not a semantic ID"),
        ("/recommend", 422, "item: Field required"),
        ("/recommend?item=a&k=0", 422, "k: Input should be greater"),
        ("/nothing", 404, "there is nothing at '/nothing'"),
    ],
)
def test_a_wrong_address_is_answered_in_a_sentence(client, path, status, says):
    found, answer, release = client.ask(path)
    assert (found, release) == (status, "r000001")
    assert says in answer["error"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 422, "the body: Field required"),
        (b"{", 422, "the body is not JSON"),
        (b"\xff", 400, "error parsing the body"),
        (b"[]", 422, "the body"),
        (b"[" * 100_000, 400, "error parsing the body"),
        (b'{"history": []}', 422, "history: List should have at least 1 item"),
        (b'{"history": ["a"], "k": 0}', 422, "k: Input should be greater"),
        (b'{"history": ["a"], "k": "5"}', 422, "k: Input should be a valid integer, got '5'"),
        (b'{"history": ["a"], "k": 1e999}', 422, "k: Input should be a valid integer"),
        (b'{"history": ["a"], "n": 1}', 422, "n: Extra inputs are not permitted"),
        (b'{"history": ["\\ud800"]}', 422, "history.0: "),
        (b'{"history": [7]}', 422, "history.0: Input should be a valid string, got 7"),
        (b'{"history": ["' + b"a" * 1_000_000 + b'"]}', 413, "larger than 1,000,000 bytes"),
    ],
)
def test_a_wrong_body_is_answered_in_a_sentence(client, body, status, says):
    found, answer, release = Client(client.port).ask("/recommend", method="POST", body=body)
    assert (found, release) == (status, "r000001")
    assert says in answer["error"]
    assert len(answer["error"]) < 400


def test_a_method_that_an_address_does_not_take_is_answered_in_a_sentence(client):
    assert client.ask("/items/a", method="DELETE") == (
        405,
        {"release": "r000001", "error": "/items/a takes no DELETE; see /openapi.json"},
        "r000001",
    )


@pytest.mark.slow
def test_no_request_that_the_description_allows_or_forbids_brings_a_fault(shop_client, tmp_path):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{shop_client.port}/openapi.json"]
    command += ["--max-examples", "60", "--seed", "20261127", "--no-color", "--generation-database", "none"]
    command += ["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


def soon(question, seconds=30):
    """Return the first true answer to `question`."""
    end = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return answer


def test_a_service_follows_a_pin(warehouse, tmp_path):
    pin(warehouse, "prod", "r000001")
    published(warehouse, 15, skip=1, generation="g2")
    with serving(warehouse.root, "--release", "prod", log=tmp_path / "serve.log") as port:
        client = Client(port)
        assert (client.get("release")[2], client.get("release")[1]["following"]) == ("r000001", "prod")
        pin(warehouse, "prod", "r000002")
        assert soon(lambda: client.get("release")[2] == "r000002")


def test_a_warehouse_that_cannot_be_read_leaves_the_former_release_and_a_word_in_health(warehouse, tmp_path):
    log = warehouse.root / "delta" / "releases" / "_delta_log"
    with serving(warehouse.root, log=tmp_path / "serve.log") as port:
        client = Client(port)
        published(warehouse, 13)
        assert soon(lambda: client.get("release")[2] == "r000002")
        log.rename(log.with_name("away"))
        assert soon(lambda: client.get("health")[1]["status"] == "behind")
        assert "r000002 is served until this is mended" in client.get("health")[1]["problem"]
        assert client.get("items", "item '012\"")[0] == 200
        log.with_name("away").rename(log)
        assert soon(lambda: client.get("health")[1]["status"] == "ok")
        (tmp_path / "serve.log").write_text("")  # which had the traceback of what could not be read


def test_releases_and_rollbacks_under_load_fail_no_request_and_mix_no_two_releases(warehouse, tmp_path):
    first = dict(zip(sample.item_ids(12), format_sids(sample.codes_of(12)), strict=True))
    second = dict(zip(sample.item_ids(15), format_sids(sample.codes_of(15, skip=1)), strict=True))
    contents = {"r000001": first}
    stop, seen, wrong = threading.Event(), [], []

    def asking(port, number):
        client, names = Client(port), sorted(second)
        while not stop.is_set():
            name = names[number % len(names)]
            status, answer, release = client.get("items", name)
            status_of_page, page, release_of_page = client.get("prefix", "<a_0>")
            seen.append((name, status, answer, release))
            seen.append((None, status_of_page, page, release_of_page))
            number += 1

    def worker(port, number):
        try:
            asking(port, number)
        except Exception as error:  # a connection that broke is a failed request
            wrong.append(repr(error))

    with serving(warehouse.root, log=tmp_path / "serve.log", every=0.05) as port:
        threads = [threading.Thread(target=worker, args=(port, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        contents[published(warehouse, 15, skip=1, generation="g2").release_id] = second
        for turn in range(8):
            target, content = (("r000001", first), ("r000002", second))[turn % 2]
            made = rollback(warehouse, target, "test")
            contents[made.release_id] = content
            soon(lambda made=made: Client(port).get("release")[2] == made.release_id)
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len({release for *_, release in seen}) >= 5
    for name, status, answer, release in seen:
        content = contents[release]
        if name is None:
            expected = sorted(content.values(), key=lambda sid: [int(part) for part in sid.replace(">", "_").split("_")[1::2]])
            assert (status, answer["release"], [one["sid"] for one in answer["items"]]) == (
                200,
                release,
                [sid for sid in expected if sid.startswith("<a_0>")],
            )
        elif name in content:
            assert (status, answer["release"], answer["sid"]) == (200, release, content[name])
        else:
            assert (status, answer["release"]) == (404, release)


def test_a_request_keeps_the_release_that_it_began_with_and_the_last_one_closes_it(warehouse):
    follower = Follower(warehouse)
    with follower.asking() as first:
        with follower.asking():
            published(warehouse, 13)
            asyncio.run(follower.look())
            assert follower.snapshot.release.release_id == "r000002"
        assert first.lookup.item("item '011\"").item_id == "item '011\""
        assert first.lookup.item("item '012\"") is None
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        first.lookup.item("item '011\"")
    assert follower.snapshot.lookup.item("item '012\"").item_id == "item '012\""


def test_recommendations_go_on_while_releases_change(shop_copy, tmp_path):
    lake = Warehouse(shop_copy.warehouse)
    history = [row["item_id"] for row in lake.read("items", version=get(lake).tables["items"]).slice(0, 3).to_pylist()]
    stop, answers, wrong = threading.Event(), [], []

    def worker(port):
        try:
            client = Client(port)
            while not stop.is_set():
                answers.append(client.post("/recommend", {"history": history, "k": 5}))
        except Exception as error:  # a connection that broke is a failed request
            wrong.append(repr(error))

    with serving(lake.root, log=tmp_path / "serve.log") as port:
        threads = [threading.Thread(target=worker, args=(port,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(4):
            made = rollback(lake, "r000001", "test")
            soon(lambda made=made: Client(port).get("release")[2] == made.release_id)
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert {status for status, _, _ in answers} == {200}
    assert {release for *_, release in answers} >= {"r000001", "r000005"}
    assert all(answer["release"] == release for _, answer, release in answers)
    assert len({json.dumps(answer["items"]) for _, answer, _ in answers}) == 1  # the same content, asked of the same model


def test_a_warehouse_in_an_object_store_is_served_and_followed(object_store, tmp_path):
    lake = Warehouse.create_or_open("s3://shop/served")
    published(lake, 12)
    with serving("s3://shop/served", log=tmp_path / "serve.log", every=0.5) as port:
        client = Client(port)
        assert client.get("items", "item '011\"")[1]["title"] == "thing item '011\""
        assert client.get("items", "item '012\"")[0] == 404
        published(lake, 13)
        assert soon(lambda: client.get("release")[2] == "r000002")
        assert client.get("items", "item '012\"")[0] == 200
        assert client.get("health")[1]["status"] == "ok"


def test_a_port_that_is_taken_is_said_in_a_sentence(client, lake):
    command = [str(Path(sys.executable).parent / "sidlake"), "serve", "-w", str(lake.root), "--port", str(client.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, f"cannot listen at 127.0.0.1:{client.port}" in done.stderr) == (2, True)


def test_before_the_first_release_there_is_nothing_to_serve(tmp_path):
    Warehouse.create_or_open(tmp_path / "lake")
    command = [str(Path(sys.executable).parent / "sidlake"), "serve", "-w", str(tmp_path / "lake"), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "run the pipeline first" in done.stderr) == (2, True)
