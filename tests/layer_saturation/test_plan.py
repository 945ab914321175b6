"""Layer plans: which layers, which order, which factors; configuration and names of the child."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from katlab import UserError
from katlab.layer_saturation.architectures import child_config, child_tensors
from katlab.layer_saturation.plan import ORDERS, STARTS, LayerPlan, costs, plan

TABLE = pd.DataFrame(
    {
        "layer": range(4),
        "influence": [0.4, 0.1, 0.2, 0.3],
        "skip": [2.0, 3.0, 0.1, 1.0],
        "repeat": [1.0, 4.0, 3.0, 0.5],
    }
)
QWEN32B = dict(
    model_type="qwen2", hidden_size=5120, intermediate_size=27648, num_hidden_layers=64,
    num_attention_heads=40, num_key_value_heads=8, vocab_size=152064, tie_word_embeddings=False,
    max_window_layers=64,
)  # fmt: skip


def test_the_reports_rule_duplicates_the_most_saturated_quarter_once():
    made = plan(4, start="copy", table=TABLE)
    assert made.source == (0, 1, 1, 2, 3)
    assert made.is_new == (False, False, True, False, False)
    assert made.scale == (1.0,) * 5
    assert (made.choice, made.order, made.start) == ("similarity", "interleaved", "copy")


@pytest.mark.parametrize(
    ("choice", "layers"),
    [("similarity", [1, 2]), ("skip-damage", [2, 3]), ("repeat-damage", [0, 3]),
     ("evenly", [1, 3])],
)  # fmt: skip
def test_each_choice_takes_its_lowest(choice, layers):
    assert plan(4, 2, choice=choice, table=TABLE).duplicated == layers


def test_a_run_is_the_contiguous_stretch_with_the_smallest_angle():
    angular = np.full((6, 6), 0.9)
    angular[2, 4] = 0.1
    assert plan(5, 2, choice="run", angular=angular).duplicated == [2, 3]


def test_stacked_repeats_each_run_as_a_whole():
    assert plan(6, choice="list", chosen=[1, 2, 4], order="stacked").source == (
        0, 1, 2, 1, 2, 3, 4, 4, 5
    )  # fmt: skip
    assert plan(6, choice="list", chosen=[1, 2, 4]).source == (0, 1, 1, 2, 2, 3, 4, 4, 5)
    twice = plan(4, choice="list", chosen=[1, 1, 2], order="stacked")
    assert twice.source == (0, 1, 2, 1, 2, 1, 3)


def test_factors_of_each_start():
    def scale(start, chosen=(1,)):
        return plan(3, choice="list", chosen=chosen, start=start, alpha=0.3).scale

    assert scale("copy") == (1, 1, 1, 1)
    assert scale("zero") == (1, 1, 0, 1)
    assert scale("half-step") == (1, 0.5, 0.5, 1)
    assert scale("half-step", (1, 1)) == pytest.approx((1, 1 / 3, 1 / 3, 1 / 3, 1))
    assert scale("alpha") == (1, 1, 0.3, 1)


@settings(max_examples=60, deadline=None)
@given(
    chosen=st.lists(st.integers(0, 7), min_size=1, max_size=10),
    order=st.sampled_from(ORDERS),
    start=st.sampled_from(STARTS),
)
def test_every_plan_keeps_each_layer_once_in_order_and_adds_the_chosen(chosen, order, start):
    made = plan(8, choice="list", chosen=chosen, order=order, start=start)
    originals = [s for s, new in zip(made.source, made.is_new, strict=True) if not new]
    assert originals == list(range(8))
    assert made.duplicated == sorted(chosen)
    assert made.child_layers == 8 + len(chosen) == len(made.scale)


@settings(max_examples=40, deadline=None)
@given(chosen=st.lists(st.integers(0, 5), min_size=1, max_size=6), order=st.sampled_from(ORDERS))
def test_names_of_the_child_are_a_bijection(chosen, order):
    made = plan(6, choice="list", chosen=chosen, order=order, start="zero")
    names = [f"model.layers.{i}.mlp.down_proj.weight" for i in range(6)]
    child = [pair for name in names for pair in child_tensors(name, made, "qwen2")]
    assert sorted(name for name, _ in child) == sorted(
        f"model.layers.{i}.mlp.down_proj.weight" for i in range(made.child_layers)
    )
    assert sum(factor == 0.0 for _, factor in child) == len(chosen)


def test_only_the_two_residual_projections_are_scaled():
    made = plan(2, choice="list", chosen=[1], start="zero")
    scaled = {"self_attn.o_proj.weight", "self_attn.o_proj.bias", "mlp.down_proj.weight"}
    for tail in (*scaled, "self_attn.q_proj.weight", "input_layernorm.weight", "mlp.up_proj.bias"):
        assert child_tensors(f"model.layers.1.{tail}", made, "qwen2") == [
            (f"model.layers.1.{tail}", 1.0),
            (f"model.layers.2.{tail}", 0.0 if tail in scaled else 1.0),
        ]
    assert child_tensors("lm_head.weight", made, "qwen2") == [("lm_head.weight", 1.0)]


def test_layer_types_and_window_layers_follow_the_map():
    made = plan(4, choice="list", chosen=[1, 3])
    config = {"num_hidden_layers": 4, "layer_types": ["f", "f", "s", "s"], "max_window_layers": 2}
    child = child_config(config, made)
    assert child["layer_types"] == ["f", "f", "f", "s", "s", "s"]
    assert (child["num_hidden_layers"], child["max_window_layers"]) == (6, 3)
    assert child_config({"num_hidden_layers": 4, "max_window_layers": 4}, made)[
        "max_window_layers"
    ] == 6  # fmt: skip
    assert config["num_hidden_layers"] == 4


def test_32b_becomes_40_57b():
    sizes = costs(QWEN32B, plan(64, choice="evenly"))
    assert (sizes["parent_layers"], sizes["child_layers"]) == (64, 80)
    assert sizes["parent_parameters"] == 32_763_876_352
    assert sizes["child_parameters"] == 40_565_560_320
    assert sizes["child_kv_bytes_per_token"] == 327_680
    assert sizes["child_flops_per_token"] > 1.2 * sizes["parent_flops_per_token"]


def test_a_plan_survives_its_file(tmp_path):
    made = plan(6, choice="list", chosen=[2, 3], order="stacked", start="half-step")
    made.save(tmp_path / "plan.json")
    assert LayerPlan.load(tmp_path / "plan.json") == made
    assert json.loads((tmp_path / "plan.json").read_text())["source"] == [0, 1, 2, 3, 2, 3, 4, 5]
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(UserError, match="no layer plan"):
        LayerPlan.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"choice": "best"}, "similarity"),
        ({"order": "mixed"}, "stacked"),
        ({"start": "random"}, "half-step"),
        ({}, "measure the model"),
        ({"choice": "run"}, "measure the model"),
        ({"choice": "evenly", "add": 5}, "from 1 to 4"),
        ({"choice": "list", "chosen": [4]}, "from 0 to 3"),
        ({"choice": "list"}, "from 0 to 3"),
    ],
)
def test_mistakes_name_the_remedy(arguments, told):
    with pytest.raises(UserError, match=told):
        plan(4, **arguments)


def test_a_plan_is_for_models_of_its_depth():
    with pytest.raises(UserError, match="plan again"):
        child_config({"num_hidden_layers": 5}, plan(4, choice="evenly"))
