from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sidlake.errors import ArtifactError, ContractError, StaleReleaseError
from sidlake.generative.models.item_facts import ItemFacts
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.sequences import SequenceReader
from sidlake.generative.timelines import whole_histories
from sidlake.generative.training.loop import fit
from sidlake.generative.training.precision import has_fast_bfloat16

TESTS = Path(__file__).parent
SAMPLE = SimpleNamespace(**runpy.run_path(str(TESTS / "generative_sample.py")))
SIDS = SAMPLE.semantic_ids()
READER = SequenceReader(SAMPLE.cycle_sequences(SIDS), SIDS, widths=SAMPLE.WIDTHS, max_history=16)
TIMELINES = whole_histories(READER)


def untrained(**changes: object) -> PackedDecoder:
    config = SAMPLE.tiny_decoder(**changes)
    torch.manual_seed(config.seed)
    return PackedDecoder(ItemFacts.of(READER.catalogue, TIMELINES.train, None), config)


def weights(model: PackedDecoder) -> torch.Tensor:
    return torch.cat([parameter.detach().ravel() for parameter in model.parameters()])


def scripted(figures: list[float]):
    """Return a judge whose NDCG after each epoch is the next of `figures`."""
    left = iter(figures)
    return lambda _: (0.5, next(left))


def test_the_best_epoch_is_kept_and_training_stops_when_none_better_comes():
    seen = []
    model = untrained(max_epochs=9, patience=3)
    best_of = scripted([0.1, 0.3, 0.2, 0.3, 0.1, 0.9])

    def validate(trained):
        seen.append(weights(trained).clone())
        return best_of(trained)

    fitted = fit(model, TIMELINES.train, validate)
    assert [row.ndcg for row in fitted.curve] == [0.1, 0.3, 0.2, 0.3, 0.1]
    assert [row.epoch for row in fitted.curve] == [1, 2, 3, 4, 5]
    assert fitted.best_epoch == 2
    assert torch.equal(weights(model), seen[1])
    assert not model.training


def test_the_loss_falls():
    curve = fit(untrained(max_epochs=6), TIMELINES.train, scripted([1, 2, 3, 4, 5, 6])).curve
    assert curve[-1].loss < curve[0].loss / 2


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    trained = []
    for seed in (0, 0, 1):
        model = untrained(max_epochs=2, dropout=0.2, num_negatives=8, seed=seed)
        torch.manual_seed(7)
        fit(model, TIMELINES.train, scripted([1, 2]))
        assert torch.equal(torch.rand(3), expected)
        trained.append(weights(model))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_generative_training_loop import TIMELINES, fit, untrained, scripted
def say(line):
    print(line, flush=True)
    if line.startswith("epoch 4"):
        time.sleep(600)
fit(untrained(max_epochs=6, dropout=0.2), TIMELINES.train, scripted([1, 2, 3, 4, 5, 6]), keep_in=Path({folder!r}), say=say)
"""


def test_a_training_killed_at_any_epoch_goes_on_to_the_same_result(tmp_path):
    whole = untrained(max_epochs=6, dropout=0.2)
    curve = fit(whole, TIMELINES.train, scripted([1, 2, 3, 4, 5, 6])).curve
    code = KILLED.format(tests=str(TESTS), folder=str(tmp_path / "state"))
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ | threads) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 4"):  # trained and judged, not yet kept
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["epoch-00003"]
    again = untrained(max_epochs=6, dropout=0.2)
    fitted = fit(again, TIMELINES.train, scripted([4, 5, 6]), keep_in=tmp_path / "state")
    assert fitted.curve == curve
    assert torch.equal(weights(again), weights(whole))


def test_a_finished_training_is_not_trained_again(tmp_path):
    first = untrained(max_epochs=2)
    fit(first, TIMELINES.train, scripted([2, 1]), keep_in=tmp_path)
    second = untrained(max_epochs=2)
    assert fit(second, TIMELINES.train, scripted([]), keep_in=tmp_path).best_epoch == 1
    assert torch.equal(weights(first), weights(second))


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [cut_in_half, Path.unlink])
@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_a_state_cut_in_half_is_refused(tmp_path, name, damage):
    fit(untrained(max_epochs=1), TIMELINES.train, scripted([1]), keep_in=tmp_path)
    damage(tmp_path / "epoch-00001" / name)
    with pytest.raises(ArtifactError, match="delete the folder and train anew"):
        fit(untrained(max_epochs=1), TIMELINES.train, scripted([1]), keep_in=tmp_path)


def test_a_state_of_other_settings_or_other_histories_is_refused(tmp_path):
    fit(untrained(max_epochs=1), TIMELINES.train, scripted([1]), keep_in=tmp_path)
    with pytest.raises(StaleReleaseError, match="other settings or another release"):
        fit(untrained(max_epochs=1, seed=1), TIMELINES.train, scripted([1]), keep_in=tmp_path)
    with pytest.raises(StaleReleaseError, match="other settings or another release"):
        fit(untrained(max_epochs=1), TIMELINES.train.take(slice(0, 100)), scripted([1]), keep_in=tmp_path)


def test_a_training_that_is_told_to_stop_ends_within_an_epoch_with_the_best_so_far(tmp_path):
    asked = iter(range(100))
    fitted = fit(untrained(), TIMELINES.train, scripted([1, 2, 3]), keep_in=tmp_path, stop=lambda: next(asked) == 5)
    assert [row.ndcg for row in fitted.curve] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-00001"]
    assert fitted.best_epoch == 2


def test_users_with_one_item_each_are_nothing_to_train_on():
    rows = [("u", "train", ["i01"], None), ("u", "valid", ["i01"], "i02"), ("u", "test", ["i01", "i02"], "i03")]
    reader = SequenceReader(SAMPLE.sequences(rows, SIDS), SIDS, widths=SAMPLE.WIDTHS, max_history=4)
    with pytest.raises(ContractError, match="nothing to train on"):
        fit(untrained(), whole_histories(reader).train, scripted([1]))


def test_bfloat16_is_asked_of_the_instruction_set():
    assert has_fast_bfloat16(torch.device("cpu")) == torch.cpu._is_amx_tile_supported()
    assert not has_fast_bfloat16(torch.device("meta"))
