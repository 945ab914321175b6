"""Trainers on real nano weights: TRL's seams, segment advantages, LoRA, two ranks, resume."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import trl
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from katlab import models, template
from katlab.cold_start import stage as cold_start
from katlab.lab import StageRun, load_profile
from katlab.lab.rows import read_jsonl, write_jsonl
from katlab.step_srpo import stage as step_srpo
from katlab.step_srpo import trainer as step_srpo_trainer
from katlab.tasks.nano import world

BASE = Path(__file__).parents[1] / "data_samples" / "nano" / "base"


def student():
    """The base model with the tags added, as stage 03 hands it on."""
    model, tokenizer = models.load_from(BASE, load_profile("tiny").model)
    template.add_tags(tokenizer)
    torch.manual_seed(0)  # the new rows are drawn
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model, tokenizer


def finished(root: Path, name: str, **overrides) -> StageRun:
    """A finished upstream stage whose student is the untrained one."""
    stage = StageRun.create(root, "r", name, profile="tiny", overrides=overrides)
    model, tokenizer = student()
    models.save(model, tokenizer, stage.checkpoints / "student")
    stage.finish()
    return stage


def corpus_rows(n: int) -> list[dict]:
    rows = world.queries(n, seed=3, split="train")
    modes = ["on", "off"] * n
    return [
        row
        | {"mode": mode, "judge": world.rationale(row, mode), "answer": row["direct"]}
        | {"thought": row["thought"] if mode == "on" else None}
        for row, mode in zip(rows, modes, strict=False)
    ]


def same(one: Path, other: Path) -> bool:
    from safetensors.torch import load_file

    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_trl_is_the_version_whose_seams_are_used():
    assert trl.__version__.startswith("1.16.")
    hooks = {
        "_calculate_rewards": ["inputs", "prompts", "completions", "completion_ids_list"],
        "_generate_and_score_completions": ["inputs"],
    }
    for name, expected in hooks.items():
        signature = inspect.signature(getattr(GRPOTrainer, name))
        assert list(signature.parameters) == ["self", *expected]


class Widened(GRPOTrainer):
    """The same advantages as (B, T); with `doubled`, twice as large on the first token only."""

    doubled = False

    def _generate_and_score_completions(self, inputs):
        out = super()._generate_and_score_completions(inputs)
        wide = out["advantages"].unsqueeze(1).expand_as(out["completion_ids"]).clone()
        if self.doubled:
            wide[:, 0] *= 2
        out["advantages"] = wide
        return out


def grpo(trainer_class, folder: Path):
    model, tokenizer = student()
    rows = [{"prompt": template.prompt(tokenizer, r["messages"])} for r in corpus_rows(8)]
    trainer = trainer_class(
        model=model,
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=2,
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=12,
            learning_rate=1e-3,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            seed=0,
        ),
        reward_funcs=lambda completion_ids, **_: [float(ids[0] % 2) for ids in completion_ids],
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_two_dimensional_advantages_equal_one_dimensional_ones_bitwise(tmp_path):
    flat = grpo(GRPOTrainer, tmp_path / "flat")
    assert torch.equal(flat, grpo(Widened, tmp_path / "wide"))
    doubled = type("Doubled", (Widened,), {"doubled": True})
    assert not torch.equal(flat, grpo(doubled, tmp_path / "doubled"))


@pytest.fixture
def parity(monkeypatch):
    """Rewards that an untrained model earns: the tokens' parity instead of a verifier's verdict."""

    def column(position):
        return lambda completion_ids, **_: [float(ids[position] % 2) for ids in completion_ids]

    always = lambda completion_ids, **_: [1.0] * len(completion_ids)  # noqa: E731
    monkeypatch.setattr(step_srpo, "rewards_for", lambda _: [column(0), always, column(-1)])


def prepared_rl(root: Path, **overrides) -> StageRun:
    finished(root, "04_cold_start")
    return StageRun.create(root, "r", "05_step_srpo", profile="tiny", overrides=overrides)


def test_step_srpo_trains_and_records_every_rollout(tmp_path, parity):
    stage = prepared_rl(tmp_path)
    metrics = step_srpo.run(stage)
    s = stage.settings
    assert metrics["steps"] == s.steps
    rollouts = read_jsonl(stage.dir / "rollouts.jsonl")
    assert len(rollouts) == s.steps * s.prompts_per_step * s.num_generations
    assert {row["problem"] for row in rollouts} <= {None, *template.PROBLEMS}
    assert not same(
        stage.checkpoints / "student", tmp_path / "r" / "04_cold_start" / "checkpoints" / "student"
    )


def test_a_resumed_step_srpo_equals_an_uninterrupted_one(tmp_path, parity):
    whole = prepared_rl(tmp_path / "whole")
    step_srpo.run(whole)
    cut = prepared_rl(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        step_srpo.run(interrupting(cut, at=2))
    assert not (cut.checkpoints / "student").exists()
    step_srpo.run(StageRun.open(cut.dir))
    assert same(whole.checkpoints / "student", cut.checkpoints / "student")


def interrupting(stage: StageRun, at: int) -> StageRun:
    """The stage with a callback that interrupts training after `at` steps."""
    from transformers import TrainerCallback

    class Interrupt(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == at:
                raise KeyboardInterrupt

    stage.callback = lambda *args, **kwargs: Interrupt()
    return stage


def prepared_sft(root: Path, **overrides) -> StageRun:
    finished(root, "03_mtp_distillation")
    replayed = [{k: v for k, v in row.items() if k != "judge"} for row in corpus_rows(64)]
    write_jsonl(finished(root, "02_dual_regime_data").dir / "corpus.jsonl", replayed)
    stage = StageRun.create(root, "r", "04_cold_start", profile="tiny", overrides=overrides)
    write_jsonl(stage.dir / "corpus.jsonl", corpus_rows(64))
    return stage


def test_a_resumed_cold_start_equals_an_uninterrupted_one(tmp_path):
    whole = prepared_sft(tmp_path / "whole")
    cold_start.train(whole)
    cut = prepared_sft(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        cold_start.train(interrupting(cut, at=3))
    cold_start.train(StageRun.open(cut.dir))
    assert same(whole.checkpoints / "student", cut.checkpoints / "student")


LORA = {"lora.enabled": True, "lora.r": 4}


def test_the_cold_start_learns_completions_and_no_prompt(tmp_path, monkeypatch):
    """TRL drops a completion_mask beside input_ids unless told otherwise."""
    seen = []

    class Looks(cold_start.SFTTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.append((inputs["input_ids"].clone(), inputs["labels"].clone()))
            return super().compute_loss(model, inputs, *args, **kwargs)

    monkeypatch.setattr(cold_start, "SFTTrainer", Looks)
    stage = prepared_sft(tmp_path)
    cold_start.train(stage)
    tokenizer = models.load_from(stage.checkpoints / "student", stage.config.model)[1]
    corpus = read_jsonl(stage.dir / "corpus.jsonl")
    stage_1 = read_jsonl(tmp_path / "r" / "02_dual_regime_data" / "corpus.jsonl")
    rows = [corpus.encode(tokenizer, row) for row in corpus + stage_1]
    expected = {tuple(row["input_ids"]): sum(row["completion_mask"]) for row in rows}
    assert seen
    for ids, labels in ((i, x) for batch in seen for i, x in zip(*batch, strict=True)):
        row = tuple(ids[: len(ids) - int((ids == tokenizer.pad_token_id).sum())].tolist())
        learned = labels != -100
        assert int(learned.sum()) == expected[row]
        assert torch.equal(labels[learned], ids[learned])


def test_cold_start_takes_the_lora_path_at_nano_size(tmp_path):
    stage = prepared_sft(tmp_path, **LORA)
    cold_start.train(stage)
    before = models.load_from(
        tmp_path / "r" / "03_mtp_distillation" / "checkpoints" / "student", stage.config.model
    )[0].state_dict()
    after = models.load_from(stage.checkpoints / "student", stage.config.model)[0].state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any("q_proj" in key for key in changed)  # adapters were trained and merged
    assert not any("layernorm" in key for key in changed)  # and nothing else of a layer was


@pytest.mark.parametrize("stage_name", ["04_cold_start", "05_step_srpo"])
def test_two_gloo_ranks(stage_name, tmp_path):
    settings = {"cold_start.batch_size": 8, "step_srpo.batch_size": 8}
    make = prepared_sft if stage_name == "04_cold_start" else prepared_rl
    stage = make(tmp_path, **settings)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc_per_node", "2", "-m", "katlab.lab.launch", stage_name]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*command, "--dir", str(stage.dir)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (stage.checkpoints / "student" / "model.safetensors").is_file()
    if stage_name == "05_step_srpo":
        s = stage.settings
        rollouts = read_jsonl(stage.dir / "rollouts.jsonl")
        assert len(rollouts) == s.steps * s.prompts_per_step * s.num_generations


def test_rewards_read_modes_and_answers_from_token_ids():
    _, tokenizer = student()
    row = next(r for r in world.queries(30, 1, "train") if r["category"] == "math")
    right = template.judged("off", "x") + template.body("off", row["direct"])
    wrong = template.judged("on", "x") + template.body("on", "77777", "hm")
    ids = [tokenizer(t + "<|im_end|>")["input_ids"] for t in (right, wrong, "nothing")]
    columns = {
        "verifier": [row["verifier"]] * 3,
        "reference": [json.dumps(row["reference"])] * 3,
        "difficulty": [row["difficulty"]] * 3,
    }
    logged = {}
    accuracy, well_formed, think_on = step_srpo_trainer.rewards_for(tokenizer)
    assert accuracy(ids, **columns, log_metric=logged.__setitem__) == [1.0, 0.0, 0.0]
    assert well_formed(completion_ids=ids) == [1.0, 1.0, 0.0]
    assert think_on(completion_ids=ids) == [0.0, 1.0, None]
    assert logged == {f"think_on/level_{row['difficulty']}": pytest.approx(1 / 3)}


def test_profiles_from_1_5b_up_describe_their_models():
    assert load_profile("proxy-1.5b").lora.enabled and not load_profile("target-40b").lora.enabled
    assert not load_profile("nano").lora.enabled
