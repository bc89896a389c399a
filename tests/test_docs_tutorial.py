"""The tutorial is done as it is written: its commands in its order, in an empty folder, and what it shows is what they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"), re.DOTALL)
BIN = Path(sys.executable).parent


@pytest.mark.slow
def test_the_tutorial_runs_and_prints_what_it_shows(tmp_path):
    (tmp_path / "data").symlink_to(ROOT / "data")
    for folder in ("sales", "later"):
        (tmp_path / folder).mkdir()
    for kind, block in BLOCKS:
        if kind == "python":
            done = run([sys.executable, "-c", block], tmp_path)
            assert done.returncode == 0, f"{block}\n{done.stderr}"
            continue
        for command, shown in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", block, re.MULTILINE):
            done = run(["bash", "-c", command], tmp_path)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            printed = [line.strip() for line in done.stdout.splitlines()]
            assert [line for line in shown.splitlines() if line.strip() not in printed] == [], f"{command}\n{done.stdout}"


def run(command, folder):
    env = {name: value for name, value in os.environ.items() if not name.startswith("SIDLAKE_")}
    env |= {"PATH": f"{BIN}{os.pathsep}{env['PATH']}", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
