"""Continued pre-training: rates from the layer map, frozen layers, a loss that falls."""

import pytest
import torch
from test_upscaling import CHOSEN, text, tiny

from katlab import UserError
from katlab.layer_saturation import child as children
from katlab.layer_saturation import recovery as continued
from katlab.layer_saturation.plan import plan
from katlab.layer_saturation.recovery import parameter_groups, rates, recovery


def test_rates_by_scheme():
    # child: 0 1 1' 2 2' 3, new at 2 and 4
    assert rates(CHOSEN, "all", 1.0) == [1.0] * 6
    assert rates(CHOSEN, "new", 1.0) == [0, 0, 1.0, 0, 1.0, 0]
    assert rates(CHOSEN, "layer-wise", 1.0, decay=0.5) == [0.25, 0.5, 1.0, 0.5, 1.0, 0.5]
    with pytest.raises(UserError, match="layer-wise"):
        rates(CHOSEN, "some", 1.0)


def test_every_trainable_parameter_is_in_exactly_one_group():
    child = children.apply_in_memory(tiny(), CHOSEN)
    for scheme in continued.SCHEMES:
        groups = parameter_groups(child, CHOSEN, scheme, 1e-3)
        grouped = [id(p) for group in groups for p in group["params"]]
        trainable = [id(p) for p in child.parameters() if p.requires_grad]
        assert sorted(grouped) == sorted(trainable) and len(set(grouped)) == len(grouped)


def test_new_layers_alone_learn():
    child = children.apply_in_memory(tiny(), CHOSEN)
    before = {n: p.detach().clone() for n, p in child.named_parameters()}
    continued.run(child, CHOSEN, text(), text(), steps=2, scheme="new", rate=1e-2, every=2)
    changed = {n for n, p in child.named_parameters() if not torch.equal(p, before[n])}
    layers = {n.split(".")[2] for n in changed}
    assert layers == {"2", "4"} and all(n.startswith("model.layers.") for n in changed)


def test_the_curve_starts_at_the_parent_and_falls():
    batches, model = text(8), tiny()
    plans = {s: plan(4, choice="list", chosen=[1], start=s) for s in ("copy", "zero")}
    curves = recovery(model, plans, batches, batches, steps=6, rate=2e-2, every=3)
    for start, curve in curves.groupby("start"):
        assert curve.step.tolist() == [-1, 0, 3, 6]
        assert curve.loss.iloc[-1] < curve.loss.iloc[0] - 0.1
        if start == "zero":
            assert curve.loss.iloc[1] == curve.loss.iloc[0], "zero starts as its parent"
    again = recovery(model, {"copy": plans["copy"]}, batches, batches, steps=6, rate=2e-2, every=3)
    assert again.equals(curves[curves.start == "copy"]), "the same seed, the same curve"
