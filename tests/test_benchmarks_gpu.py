"""The GPU benchmark on a CPU: its stages run in order, are kept, and say what was left out or failed."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("benchmark_gpu", FOLDER / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


def test_a_dry_run_prints_a_line_a_stage_and_a_second_one_goes_on(tmp_path):
    command = [sys.executable, str(FOLDER / "gpu.py"), "--dry", "--only", "encode", "--out", str(tmp_path)]
    first, second = (json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(2))
    assert (first["stage"], first["dry"], first["equal_share"]) == ("encode", True, 1.0)
    assert 0 < first["share_of_limit"] == pytest.approx(first["vectors_per_s"] / first["bf16_limit_vectors_per_s"], rel=0.01)
    assert second == first | {"resumed": True}


def run_of(gpu, folder, seconds):
    return gpu.Run(dry=True, device="cpu", out=folder, deadline=time.monotonic() + seconds)


def test_a_stage_without_time_is_left_out_and_not_kept(gpu, tmp_path):
    assert "0 s left" in gpu.stage("fit", run_of(gpu, tmp_path, -5))["left_out"]
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_fails_is_told_and_tried_again(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "DIM", 0)  # rows of no dimension cannot be fitted
    assert "error" in gpu.stage("fit", run_of(gpu, tmp_path, 60))
    assert list(tmp_path.iterdir()) == []


def test_a_dry_figure_does_not_stand_for_a_real_one(gpu, tmp_path):
    (tmp_path / "fit.json").write_text(json.dumps({"stage": "fit", "dry": False}), encoding="utf-8")
    assert "resumed" not in gpu.stage("fit", run_of(gpu, tmp_path, -5))


def test_stages_come_in_the_order_of_what_one_wants_to_know_first(gpu):
    assert list(gpu.STAGES) == ["tests", "encode", "fit", "text", "beauty", "study"]
