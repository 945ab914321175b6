"""How fast a stage was: FLOPs and shares by hand, what is noted when, what the notes come to."""

from types import SimpleNamespace

import decoder
import pytest
from peft import LoraConfig, get_peft_model

from katlab import sizes, speed
from katlab.generation import engines, local
from katlab.lab import Journal, StageRun, read_jsonl

# of `decoder.SHAPE`: 2 layers x (3,072 attention + 4,608 MLP) + 61 x 32 of the head = 17,312
# weights; a token in a row of n costs 2 x 17,312 + 4 x 2 layers x 32 x n
FORWARD = 10 * (34624 + 256 * 10) + 20 * (34624 + 256 * 20)
H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def stage(tmp_path) -> StageRun:
    return StageRun.create(tmp_path, "r", "04_cold_start", profile="tiny")


@pytest.mark.parametrize(
    "name, flops",
    [
        (H100, 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA L4", None),
        ("CPU", None),
    ],
)
def test_a_peak_is_known_or_none(name, flops):
    assert sizes.peak(name) == flops


def test_a_full_training_costs_three_passes_and_frozen_weights_one_less(stage):
    model = decoder.tiny()
    speed.trained(stage, "full", model, [10, 20], 2.0)
    for parameter in model.model.parameters():
        parameter.requires_grad_(False)
    speed.trained(stage, "head", model, [10, 20], 2.0, read=1000.0)
    full, head = read_jsonl(stage.dir / speed.FILE)
    assert full == {
        "part": "training", "name": "full", "device": "CPU", "tokens": 30, "seconds": 2.0,
        "flops": 3 * FORWARD, "peak": None,
    }  # fmt: skip
    share = 61 * 32 / sum(p.numel() for p in model.parameters())
    assert head["flops"] == pytest.approx((2 + share) * FORWARD + 1000)


def test_lora_trains_a_small_share(stage):
    model = get_peft_model(decoder.tiny(), LoraConfig(r=1, target_modules=["q_proj"]))
    total = sizes.parameters(decoder.tiny().config.to_dict())["total"]
    assert speed.trained_share(model) == 2 * (32 + 32) / total


def test_another_kind_of_model_has_no_flops(stage):
    assert speed.forward_flops({"model_type": "mamba"}, [10]) is None


def test_mfu_is_flops_over_what_the_gpus_could(tmp_path):
    row = {"tokens": 100, "device": H100, "peak": 1e12}
    for seconds, flops in ((1.0, 5e11), (3.0, 3e11)):
        speed.note(tmp_path, "training", "a", **row | {"seconds": seconds, "flops": flops})
    speed.note(tmp_path, "sampling", "replies", tokens=600, seconds=0.3)
    found = speed.of(tmp_path)
    assert found["training"] == {"tokens": 200, "seconds": 4.0, "tokens_per_s": 50, "mfu": 0.2}
    assert found["sampling"] == {"replies": {"tokens": 600, "seconds": 0.3, "tokens_per_s": 2000}}
    assert speed.of(tmp_path / "none") == {"device": None, "training": None, "sampling": {}}


def test_without_a_peak_there_is_no_mfu(stage):
    speed.trained(stage, "a", decoder.tiny(), [10], 1.0)
    assert speed.of(stage.dir)["training"]["mfu"] is None
    assert speed.of(stage.dir)["device"] == "CPU"


@pytest.mark.parametrize(
    "begun, steps, counted",
    [(0, 3, [3, 4, 5, 6]), (1, 3, [5, 6]), (0, 1, [1, 2]), (2, 3, [5, 6])],
)
def test_the_first_step_of_a_process_is_left_out_if_there_are_more(stage, begun, steps, counted):
    rows = [{"input_ids": [0] * n} for n in range(1, 7)]
    timed, model = speed.Timed(stage, "a", rows, 2), decoder.tiny()
    state = SimpleNamespace(global_step=begun, max_steps=steps)
    timed.on_train_begin(None, state, None)
    for state.global_step in range(begun + 1, steps + 1):
        timed.on_step_end(None, state, None, model=model)
    (noted,) = read_jsonl(stage.dir / speed.FILE)
    assert noted["tokens"] == sum(counted)


def test_teachers_that_read_along_take_a_pass_each(stage):
    model = decoder.tiny()
    rows = [{"input_ids": [0] * 10, "teacher_ids": [0] * 20, "reader": i - 1} for i in range(2)]
    timed = speed.Timed(stage, "a", rows, 2, [model])
    state = SimpleNamespace(global_step=0, max_steps=1)
    timed.on_train_begin(None, state, None)
    state.global_step = 1
    timed.on_step_end(None, state, None, model=model)
    (noted,) = read_jsonl(stage.dir / speed.FILE)
    once = speed.forward_flops(model.config.to_dict(), [10])
    assert noted["flops"] == 3 * 2 * once + speed.forward_flops(model.config.to_dict(), [20])


def test_replies_that_were_drawn_are_noted_and_kept_ones_not(model, tokenizer, stage):
    asked = ["a b", "c", "d e f"]
    how = {"max_new_tokens": 4, "journal": stage.journal("replies.jsonl")}
    ids = engines.sample(stage.config.model, model, tokenizer, asked, **how)
    (noted,) = read_jsonl(stage.dir / speed.FILE)
    assert (noted["part"], noted["name"]) == ("sampling", "replies")
    assert noted["tokens"] == sum(map(len, ids)) > 0
    engines.sample(stage.config.model, model, tokenizer, asked, **how)
    assert len(read_jsonl(stage.dir / speed.FILE)) == 1


def test_an_engine_that_gives_one_reply_at_a_time_is_counted_alike(stage, monkeypatch):
    def sample(model, tok, prompts, journal, **how):
        journal.put("a", [1, 2, 3])
        journal.put("b", [[4], [5, 6]])
        return [[1, 2, 3], [4], [5, 6]]

    monkeypatch.setattr(local, "sample", sample)
    journal = Journal(stage.dir / "replies.jsonl")
    engines.sample(stage.config.model, None, None, ["x"], max_new_tokens=4, journal=journal)
    assert read_jsonl(stage.dir / speed.FILE)[0]["tokens"] == 6
    assert len(journal) == 2
