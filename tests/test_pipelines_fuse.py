"""The fuse step: the kind is the recipe's, pairs are those of training, and what each modality explains is kept."""

import pytest

from sidlake.encoders.fusion.fusion import Fusion
from sidlake.pipelines.fuse import load_fusion
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id, run_step
from sidlake.pipelines.steps import STEPS
from sidlake.warehouse.tables import Warehouse

KINDS = {
    "contrastive": 'fuse = { kind = "contrastive", unit = true, dim = 12, num_steps = 5, batch_size = 32 }',
    "align": 'fuse = { kind = "align", target = "behaviour" }',
}
REST = """
[encoders.fusion.text]
dim = 16
[encoders.fusion.behaviour]
weight = 0.7
dim = 8
"""


@pytest.fixture(scope="module")
def fused(shop, tmp_path_factory):
    """The shop's vectors fused by each kind: the last step's report, the run's facts and the fusion."""
    folder = tmp_path_factory.mktemp("kinds")
    made = {}
    for name, fuse in KINDS.items():
        (folder / f"{name}.toml").write_text(f'name = "{name}"\nsource = "a test"\n[encoders]\n{fuse}\n{REST}')
        recipe = load_recipe(shop.recipe, method=folder / f"{name}.toml")
        ctx = RunContext.open(Warehouse.create_or_open(folder / "lake"), recipe, run_id=new_run_id(), job="retrain")
        reports = {name: run_step(ctx, step) for name, step in STEPS.items() if step.group in ("catalog", "embeddings")}
        made[name] = reports["fit_fusion"], ctx.state.explained, load_fusion(ctx)
    return made


def test_the_kind_is_the_recipe_s(fused):
    fusions: dict[str, Fusion] = {name: fusion for name, (_, _, fusion) in fused.items()}
    assert {name: (fusion.config.fuse.kind, fusion.dim) for name, fusion in fusions.items()} == {
        "contrastive": ("contrastive", 12),
        "align": ("align", 8),
    }
    assert fusions["contrastive"].config.fuse.unit
    assert fusions["align"].config.target == "behaviour"


@pytest.mark.parametrize("kind", KINDS)
def test_what_each_modality_explains_is_kept_and_reported(fused, kind):
    report, explained, _ = fused[kind]
    assert sorted(explained) == ["behaviour", "text"]
    assert sum(explained.values()) == pytest.approx(1.0, abs=2e-4)  # rounded to four digits each
    assert {report.details[f"{name}_explains"] for name in ("text", "behaviour")} == set(explained.values())


def test_pairs_are_of_training_and_their_window_is_in_the_artifact(fused):
    report, _, fusion = fused["contrastive"]
    first, last = fusion.about["window"]
    assert first < last < "2011-11-10"  # the shop's last event is of 9 December 2011 and the last 30 days are held out
    assert fusion.about["pairs"] == report.details["pairs"] > 1000
    assert report.details["pairs_until"] == last
