"""Continued pre-training: rates from the layer map, frozen layers, a loss that falls."""

import pytest
import torch
from test_upscaling import CHOSEN, text, tiny

from katlab import UserError
from katlab.layer_saturation import child as children
from katlab.layer_saturation import recovery as continued
from katlab.layer_saturation.plan import plan
from katlab.layer_saturation.recovery import parameter_groups, rates, recovery

HOW = dict(steps=6, scheme="all", rate=2e-2, every=3)


def test_rates_by_scheme():
    # child: 0 1 1' 2 2' 3, new at 2 and 4
    assert rates(CHOSEN, "all", 1.0) == [1.0] * 6
    assert rates(CHOSEN, "new", 1.0) == [0, 0, 1.0, 0, 1.0, 0]
    assert rates(CHOSEN, "layer-wise", 1.0) == pytest.approx([0.49, 0.7, 1.0, 0.7, 1.0, 0.7])
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
    continued.run(child, CHOSEN, text(), text(), **HOW | {"scheme": "new"})
    changed = {n for n, p in child.named_parameters() if not torch.equal(p, before[n])}
    layers = {n.split(".")[2] for n in changed}
    assert layers == {"2", "4"} and all(n.startswith("model.layers.") for n in changed)


def test_the_tokens_of_all_steps_are_told_with_the_seconds_of_the_training_alone():
    told = []
    child = children.apply_in_memory(tiny(), CHOSEN)
    continued.run(child, CHOSEN, text(), text(), timed=lambda *given: told.append(given), **HOW)
    (model, lengths, seconds), rows = told[0], [b["attention_mask"] for b in text()]
    assert model is child and seconds > 0 and len(told) == 1
    assert sum(lengths) * len(rows) == HOW["steps"] * sum(int(row.sum()) for row in rows)


def test_the_curve_starts_at_the_parent_and_falls():
    batches, model = text(8), tiny()
    plans = {s: plan(4, choice="list", chosen=[1], start=s) for s in ("copy", "zero")}
    curves = recovery(model, plans, batches, batches, **HOW)
    for start, curve in curves.groupby("start"):
        assert curve.step.tolist() == [-1, 0, 3, 6]
        assert curve.loss.iloc[-1] < curve.loss.iloc[0] - 0.1
        if start == "zero":
            assert curve.loss.iloc[1] == curve.loss.iloc[0], "zero starts as its parent"
    again = recovery(model, {"copy": plans["copy"]}, batches, batches, **HOW)
    assert again.equals(curves[curves.start == "copy"]), "the same seed, the same curve"


def test_weights_of_a_bfloat16_parent_move_at_a_small_rate():
    """At 2e-5 a step rounds to nothing in bfloat16, for which 29 % of the weights moved."""
    parent = tiny(torch.bfloat16)
    child = children.apply_in_memory(parent, CHOSEN)
    before = {name: p.detach().clone() for name, p in child.named_parameters()}
    how = dict(HOW, steps=4, rate=2e-5, compute=torch.bfloat16)
    continued.run(child, CHOSEN, text(8), text(), **how)
    moved = [(p != before[name]).double().mean() for name, p in child.named_parameters()]
    sizes = [p.numel() for p in child.parameters()]
    share = sum(m * size for m, size in zip(moved, sizes, strict=True)) / sum(sizes)
    assert share > 0.99 and min(moved) > 0.9


def test_a_bfloat16_parents_child_is_run_in_bfloat16(monkeypatch):
    """The forward pass as the parent's, the weights and what AdamW keeps of them in float32."""
    child, seen = children.apply_in_memory(tiny(torch.bfloat16), CHOSEN), set()

    def note(module, _, out):
        if isinstance(module, torch.nn.Linear):
            seen.add(out.dtype)

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        continued.run(child, CHOSEN, text(), text(), **HOW | {"compute": torch.bfloat16})
    finally:
        hook.remove()
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in child.parameters()} == {torch.float32}


def test_weights_too_coarse_to_train_are_refused():
    child = children.apply_in_memory(tiny(), CHOSEN).to(torch.bfloat16)
    with pytest.raises(UserError, match="float32 copy"):
        continued.run(child, CHOSEN, text(), text(), **HOW)
