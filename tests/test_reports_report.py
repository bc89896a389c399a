"""The report's page: on a real shop, and on releases built by hand with hostile texts, broken gates and a long history."""

import io
import json
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
import warehouse_sample as sample
from PIL import Image

from sidlake.errors import NotFoundError
from sidlake.reports.files import MAX_BYTES, write_report
from sidlake.reports.page import page_of
from sidlake.reports.plots import Rate, collision_chart, hit_rate_chart, level_heat_map
from sidlake.reports.report import report_of
from sidlake.warehouse.contracts import CONTRACTS, conform
from sidlake.warehouse.releases import get, publish
from sidlake.warehouse.tables import Warehouse

HOSTILE = "</title></style><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\"' \u202e$\\frac$"
TAGS = "html head meta title style body h1 h2 h3 p b i br nav a section div span code table tr th td details summary bdi ul li"
DRAWN = "svg defs g path text tspan use rect line clippath polyline circle image lineargradient stop"
WARNED = {"metric": "moved_share", "level": None, "value": 0.4, "threshold": 0.3, "verdict": "warn", "reason": "0.4 is above 0.3"}


class Page(HTMLParser):
    """What a browser would see: tags, attributes, text by the tag it is in."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.words, self._open = set(), [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._open.append(tag)

    def handle_data(self, data):
        if self._open[-1:] not in (["style"], ["title"]):
            self.words.append(data)


def publish_next(lake, *, count=12, rows=(), title="thing", override=None, recipe="shop", pictures=None, generation="g1", skip=0):
    """Publish a lawful release with these rows of sid_quality after whatever there is; return it."""
    known = lake.version("releases")
    before = get(lake) if known is not None else None
    run_id = f"run-{known}"
    tables = sample.write(lake, count, run_id=run_id, title=title, generation=generation, skip=skip)
    if rows:
        of = pa.Table.from_pylist([dict.fromkeys(CONTRACTS["sid_quality"].names) | row for row in rows], CONTRACTS["sid_quality"])
        tables["sid_quality"] = lake.overwrite("sid_quality", of, run_id=run_id)
    if pictures:
        items = sample.items(sample.item_ids(count), title)
        column = pa.array([pictures.get(place) for place in range(count)], pa.binary())
        of = conform(items.set_column(items.schema.get_field_index("image"), "image", column), "items")
        tables["items"] = lake.overwrite("items", of, run_id=run_id)
    draft = sample.draft(tables, run_id=run_id, generation=generation)
    draft = replace(draft, config={"name": recipe}, override=override, published_by="ann@shop")
    return publish(lake, draft, expected_parent=before.release_id if before else None)


def picture(colour):
    stream = io.BytesIO()
    Image.new("RGB", (200, 100), colour).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def lake(tmp_path):
    return Warehouse.create_or_open(tmp_path / "lake")


@pytest.fixture(scope="module")
def page(shop):
    """The page that the run of a real shop left."""
    return (shop.warehouse / "reports" / "r000001.html").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------- a real shop


def test_a_run_leaves_a_page_that_begins_with_its_verdict(page):
    text = Page(page).text
    assert re.match(r"Semantic IDs of online_retail, release r000001 .{0,250}(Passed|Passed with warnings) ", text)


def test_every_row_of_sid_quality_is_on_the_page_once(shop, page):
    lake = Warehouse(shop.warehouse)
    rows = lake.read("sid_quality", version=get(lake).tables["sid_quality"]).to_pylist()
    shown = re.findall(r"<code class=soft>(\w+)</code>", page)
    assert len(shown) == len(set(shown))
    assert set(shown) == {row["metric"] for row in rows if not row["metric"].endswith("_ci_half_width")}


def test_every_metric_on_the_page_has_a_sentence(page):
    readings = re.findall(r"<div class=reading>(.*?)</div>", page)
    assert len(readings) > 50
    assert all(readings)


def test_the_page_is_made_of_known_tags_and_asks_nobody_for_anything(page):
    found = Page(page)
    assert found.tags <= {*TAGS.split(), *DRAWN.split()}
    assert_self_contained(found, page)
    assert len(page.encode()) < MAX_BYTES


def test_the_same_release_gives_the_same_bytes(shop, page, tmp_path):
    write_report(Warehouse(shop.warehouse), root=shop.recipe.parent, output=tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_the_command_line_writes_the_page_without_loading_torch(shop, page, tmp_path):
    call = "from sidlake.cli.app import app; app(standalone_mode=False)"
    code = f"import sys; {call}; print({{'torch', 'dagster'}} & set(sys.modules))"
    arguments = ["report", "r000001", "-w", str(shop.warehouse), "-o", str(tmp_path / "cli.html"), "--json"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    about, loaded = done.stdout.rsplit("\n", 2)[:2]
    assert json.loads(about)["bytes"] == (tmp_path / "cli.html").stat().st_size
    assert loaded == "set()"


def test_hit_rates_are_drawn_with_chance_and_popularity(page):
    assert "by chance: " in page
    assert "Hit rate by popularity" in page


def test_every_item_of_a_small_catalogue_can_be_found_in_the_tree(shop, page):
    lake = Warehouse(shop.warehouse)
    ids = lake.read("items", version=get(lake).tables["items"], columns=["item_id"])["item_id"].to_pylist()
    tree = page[page.index("<div class=tree>") :]
    assert [one for one in ids if f">{one}</bdi>" not in tree] == []


def test_items_that_moved_are_listed_dearest_first(shop, page):
    lake = Warehouse(shop.warehouse)
    rows = lake.read("semantic_ids", version=get(lake).tables["semantic_ids"]).to_pylist()
    furthest = sorted((row for row in rows if row["moved"]), key=lambda row: (-row["move_cost"], row["item_id"]))[:25]
    section = page[page.index('<section id="moved">') : page.index('<section id="tree">')]
    assert re.findall(r'<bdi class="soft sid">(.+?)</bdi>', section) == [row["item_id"] for row in furthest]


# ------------------------------------------------------------------------------------------------------------ hostile texts


def test_hostile_titles_ids_reasons_and_names_are_only_text(lake):
    rows = [WARNED | {"reason": HOSTILE, "examples": [HOSTILE]}, WARNED | {"metric": HOSTILE, "level": 1, "verdict": "refuse"}]
    publish_next(lake, title=HOSTILE, rows=rows, recipe=HOSTILE, override=HOSTILE)
    html = page_of(report_of(lake))
    found = Page(html)
    assert found.tags <= {*TAGS.split(), *DRAWN.split()}
    assert_self_contained(found, html)
    assert found.text.count("<script>alert(1)</script>") > 12  # shown as what it is
    assert "\u202e" not in html


OURS = {"verdict", "metric"}  # words that this code chooses, and not a catalogue, a recipe or a user


def hostile(value):
    """Return `value` with every text in it, however deep, made hostile; keys and our own words stay."""
    if isinstance(value, str):
        return HOSTILE + value
    if isinstance(value, dict):
        return {key: hostile(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(hostile(one) for one in value)
    if is_dataclass(value):
        return replace(value, **{one.name: hostile(getattr(value, one.name)) for one in fields(value) if one.name not in OURS})
    return value


def test_no_text_of_a_report_is_ever_anything_but_text(lake):
    rows = [WARNED | {"examples": ["a"]}, WARNED | {"metric": "spill_rate", "level": 1, "verdict": "refuse"}]
    publish_next(lake, rows=rows, override="me: why")
    publish_next(lake, rows=rows, generation="g2", skip=3, override="me: why")
    plain = page_of(report_of(lake))
    html = page_of(hostile(report_of(lake)))
    found = Page(html)
    assert found.tags == Page(plain).tags
    assert_self_contained(found, html)
    assert "\u202e" not in html
    assert len(re.findall(r"&lt;script&gt;alert\(1\)", html)) > 60
    assert "<script" not in html


def test_endless_titles_leave_the_page_small(lake):
    publish_next(lake, count=60, title='"' * 100_000)
    assert len(page_of(report_of(lake))) < 300_000


def test_a_tree_too_long_for_the_page_is_cut(lake, monkeypatch):
    import sidlake.reports.files as module

    publish_next(lake, count=40)
    whole = write_report(lake)["bytes"]
    monkeypatch.setattr(module, "MAX_BYTES", whole)
    monkeypatch.setattr(module, "_SHOWN", (8000, 5))
    assert write_report(lake)["bytes"] < whole
    assert "more" in (lake.root / "reports" / "r000001.html").read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------------- pictures


def test_pictures_are_drawn_anew_small_and_once(lake):
    publish_next(lake, pictures={0: picture("red"), 1: picture("blue"), 2: b"not a picture"})
    html = page_of(report_of(lake))
    uris = re.findall(r"url\(data:image/webp;base64,([\w+/=]+)\)", html)
    assert len(uris) == len(set(uris)) == 2
    assert html.count('class="picture p0"') >= 2  # in the tree, and beside its prefix


def test_a_named_picture_is_read_below_the_root_and_nowhere_else(lake, tmp_path):
    (tmp_path / "root").mkdir()
    for place in (tmp_path / "root" / "in.png", tmp_path / "out.png"):
        place.write_bytes(picture("red"))
    names = ["in.png", "../out.png", "http://evil.example/x.png", "none.png"]
    tables = sample.write(lake, 12, run_id="named")
    items = sample.items(sample.item_ids(12))
    uris = pa.array([*names, *[None] * 8], pa.string())
    items = conform(items.set_column(items.schema.get_field_index("image_uri"), "image_uri", uris), "items")
    tables["items"] = lake.overwrite("items", items, run_id="named")
    publish(lake, sample.draft(tables, run_id="named"), expected_parent=None)
    assert [row for row, item in report_of(lake, root=tmp_path / "root").items.items() if item.picture] == [0]
    assert not any(item.picture for item in report_of(lake).items.values())


# ------------------------------------------------------------------------------------------------------ gates and history


def test_a_broken_limit_shows_reason_examples_and_remedy(lake):
    publish_next(lake, rows=[WARNED | {"examples": ["42 red mug"]}])
    text = Page(page_of(report_of(lake))).text
    assert "Passed with warnings 0 of 1 limits kept. Not kept: Items moved to be unique." in text
    assert "0.4 is above 0.3. Such as: 42 red mug. What to try: use wider or more levels" in text
    assert "40.0% at most 30%" in text


def test_an_override_is_red_and_names_who_and_why(lake):
    publish_next(lake, rows=[WARNED | {"verdict": "refuse"}], override="the sale starts at noon")
    html = page_of(report_of(lake))
    assert re.search(r'<div class="override">r000001 was published against its gates by .+: the sale starts at noon</div>', html)
    assert '<div class="verdict refuse"><b>Published against its gates</b>' in html


def test_an_earlier_override_is_a_line_of_a_later_report(lake):
    publish_next(lake, rows=[WARNED | {"verdict": "refuse"}], override="the sale starts at noon")
    publish_next(lake, count=13)
    html = page_of(report_of(lake))
    assert '<div class="overridden">r000001 was published against its gates' in html
    assert '<div class="override">' not in html


def test_a_recipe_without_gates_is_told_so(lake):
    publish_next(lake, rows=[WARNED | {"threshold": None, "verdict": "info", "reason": None}])
    text = Page(page_of(report_of(lake))).text
    assert "No limit was set" in text
    assert "The recipe sets no limits" in text


def test_an_optional_gate_that_found_nothing_is_shown_as_not_measured(lake):
    publish_next(lake, rows=[WARNED, WARNED | {"metric": "ehr_reconstructed", "value": None, "threshold": 0.1, "verdict": "info"}])
    html = page_of(report_of(lake))
    judged = html[html.index('<section id="judged">') : html.index('<section id="use">')]
    assert "not measured" in judged
    assert "No hit rate was measured" in html


def test_history_is_a_line_over_all_releases_and_the_value_before(lake):
    for number, value in enumerate((0.1, 0.2, 0.25)):
        publish_next(lake, count=12 + number, rows=[WARNED | {"value": value, "verdict": "pass", "reason": None}])
    (row,) = report_of(lake).metrics
    assert row.history == (("r000001", 0.1), ("r000002", 0.2), ("r000003", 0.25))
    assert row.before == 0.2
    html = page_of(report_of(lake))
    assert "before: 20.0%" in html
    (line,) = re.findall(r'<polyline points="([\d., ]+)"/>', html)
    assert [float(point.split(",")[0]) for point in line.split()] == [4.0, 60.0, 116.0]
    assert np.all(np.diff([float(point.split(",")[1]) for point in line.split()]) < 0)  # upwards


def test_a_metric_with_a_limit_at_one_level_stays_in_one_row(lake):
    rows = [WARNED | {"level": 0}, WARNED | {"level": 1, "threshold": None, "verdict": "info", "reason": None}]
    publish_next(lake, rows=rows)
    html = page_of(report_of(lake))
    assert html.count("<code class=soft>moved_share</code>") == 1
    assert "levels 0 to 1" in html


def test_a_report_of_an_old_release_knows_nothing_later(lake):
    for count in (12, 13, 14):
        publish_next(lake, count=count)
    report = report_of(lake, "r000002")
    assert [release for release, _ in report.metrics[0].history] == ["r000001", "r000002"]
    assert (report.num_items, report.comparison.against.release_id) == (13, "r000001")


def test_against_names_the_release_to_compare_with(lake):
    for count in (12, 13, 15):
        publish_next(lake, count=count)
    found = report_of(lake, against="r000001").comparison
    assert (found.num_common, found.num_new, found.num_gone) == (12, 3, 0)
    assert [level.changed for level in found.churn] == [0.0, 0.0, 0.0]
    assert "Every item in both kept its SID." in page_of(report_of(lake, against="r000001"))


def test_a_new_generation_shows_how_many_codes_changed(lake):
    publish_next(lake)
    publish_next(lake, generation="g2", skip=20)  # item i has the codes of place i + 20: 3 x 4 x 5 of them
    report = report_of(lake)
    changed = [level.changed for level in report.comparison.churn]
    before, after = (np.array(sample.codes_of(12, skip=skip)) for skip in (0, 20))
    assert changed == (before != after).mean(axis=0).tolist()
    assert "code, renamed" in page_of(report)


def test_a_release_that_is_not_there_is_named(lake):
    publish_next(lake)
    with pytest.raises(NotFoundError, match="r000009"):
        report_of(lake, "r000009")


def test_an_installation_without_its_templates_is_told_so(lake, tmp_path, monkeypatch):
    publish_next(lake)
    monkeypatch.setattr("sidlake.reports.rendering.TEMPLATES", tmp_path / "nowhere")
    with pytest.raises(NotFoundError, match=r"page\.html\.j2 is missing from this installation"):
        write_report(lake)


def test_without_matplotlib_the_error_says_what_to_install(lake, monkeypatch):
    publish_next(lake)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("sidlake.reports.page", "sidlake.reports.plots"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(NotFoundError, match=r"matplotlib.*pip install 'sidlake\[pipeline\]'"):
        write_report(lake)
    assert not (lake.root / "reports").exists()


# ------------------------------------------------------------------------------------------------------------------ charts


def test_the_collision_chart_counts_items_not_sids():
    labels = re.findall(r">([\d,]+)</text>", collision_chart([(1, 7), (2, 3), (6, 2), (30, 1)], [(1, 55)]))
    assert {"7", "6", "12", "30", "55"} <= set(labels)


def test_the_heat_map_counts_used_codes_and_the_fullest():
    drawn = level_heat_map([np.array([3, 0, 1]), np.array([4, 0])])
    assert "2 of 3 codes used, the fullest by 3 items" in drawn
    assert "1 of 2 codes used, the fullest by 4 items" in drawn


def test_a_rate_that_was_not_measured_leaves_a_gap():
    drawn = hit_rate_chart({"a": [Rate(label="x", value=0.5), Rate(label="y", value=None)]})
    assert re.findall(r">([\d.]+%)</text>", drawn).count("50.0%") == 1
    assert ">0.0%<" not in drawn


def test_charts_are_the_same_bytes_every_time():
    assert level_heat_map([np.array([3, 0, 1])]) == level_heat_map([np.array([3, 0, 1])])


def assert_self_contained(found, html):
    """Assert that no attribute or style of the page names anything outside it, and that nothing in it runs."""
    places = [value for tag, name, value in found.attributes if name in ("src", "href", "xlink:href", "action", "data", "srcset")]
    places += re.findall(r"url\(([^)]*)\)", html)
    assert [place for place in places if not place.startswith(("#", "data:image/"))] == []
    assert [name for _, name, _ in found.attributes if name.startswith("on")] == []
    assert "@import" not in html
    assert "default-src 'none'" in html
