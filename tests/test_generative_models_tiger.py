from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sidlake.generative.catalogue import TokenSpace
from sidlake.generative.config import GenerativeConfig
from sidlake.generative.models.tiger import GenerativeModel

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("generative_sample.py"))))
SPACE = TokenSpace(widths=SAMPLE.WIDTHS)


def build(**changes: object) -> GenerativeModel:
    torch.manual_seed(0)
    return GenerativeModel(SPACE, SAMPLE.tiny_config(**changes)).eval()


HISTORY = torch.tensor([[0, 0, 0, 0, 0, 0, 2, 5, 9, 3, 6, 10]])
TARGET = torch.tensor([[4, 8, 13]])


def test_the_loss_is_the_mean_negative_log_probability_of_the_targets_codes():
    model = build()
    states = model.encode(HISTORY)
    total = 0.0
    for level, (token, offset) in enumerate(zip(TARGET[0], SPACE.offsets, strict=True)):
        hidden = model.decode(TARGET[:, :level], *states)[:, -1]
        total -= float(model.level_logits(hidden, level).log_softmax(-1)[0, token - offset].detach())
    assert float(model.loss(HISTORY, TARGET).detach()) == pytest.approx(total / 3, rel=1e-5)


def test_padding_in_front_does_not_change_the_scores():
    model = build()
    short, long = (model.decode(TARGET[:, :1], *model.encode(history)) for history in (HISTORY[:, 6:], HISTORY))
    assert torch.allclose(short, long, atol=1e-5)


def test_the_order_of_the_history_matters():
    model = build()
    swapped = torch.cat([HISTORY[:, :6], HISTORY[:, 9:], HISTORY[:, 6:9]], dim=1)
    assert not torch.allclose(model.loss(HISTORY, TARGET), model.loss(swapped, TARGET))


def test_the_places_that_hold_items_are_counted_from_the_newest():
    model = build()
    with torch.no_grad():
        before = model.loss(HISTORY, TARGET)
        model.place_HD[:2] += 1.0  # HISTORY pads the first two of four places
        assert torch.allclose(model.loss(HISTORY, TARGET), before, rtol=1e-6)
        model.place_HD[2] += 1.0
        assert not torch.allclose(model.loss(HISTORY, TARGET), before, rtol=1e-3)


def test_an_empty_history_scores_finitely():
    assert torch.isfinite(build().loss(torch.zeros_like(HISTORY), TARGET))


def test_label_smoothing_and_dropout_reach_the_model():
    plain = float(build().loss(HISTORY, TARGET).detach())
    assert float(build(label_smoothing=0.2).loss(HISTORY, TARGET).detach()) != pytest.approx(plain)
    assert float(build(dropout=0.5).train().loss(HISTORY, TARGET).detach()) != pytest.approx(plain)


@pytest.mark.parametrize(
    "bad", [{"d_model": 0}, {"num_heads": 5}, {"dropout": 1.0}, {"learning_rate": 0.0}, {"num_steps": 0}, {"label_smoothing": -0.1}]
)
def test_a_setting_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        GenerativeConfig(**bad)
