"""The pages as a site: it builds with every link checked, has every page, and loads nothing from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built_and_in_the_menu_but_decisions(site):
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = sorted((ROOT / "docs").glob("*.md"))
    assert [page.name for page in pages if f": {page.name}" not in menu] == []
    built = [site / "index.html", *(site / page.stem / "index.html" for page in pages if page.stem != "index")]
    assert [page for page in built if not page.is_file()] == []


def test_a_page_loads_nothing_from_elsewhere(site):
    loaded = r'<(?:script|img|link|iframe)[^>]*(?:src|href)="((?:https?:)?//[^"]*)"'
    found = {place: re.findall(loaded, place.read_text(encoding="utf-8")) for place in site.rglob("*.html")}
    assert {str(place): urls for place, urls in found.items() if urls} == {}
