"""Step-SRPO's trainer on real nano weights: TRL's seams, advantages, logs, two ranks, resume."""

import inspect
import json
import os
import runpy
import socket
import sys
from pathlib import Path

import pytest
import stubs
import torch
import trl
from datasets import Dataset
from safetensors.torch import load_file
from trainers import corpus_rows, finished, interrupting, same, student, torchrun
from trl import GRPOConfig, GRPOTrainer

from katlab import UserError, arms, speed, template
from katlab.lab import StageRun, read_jsonl
from katlab.rewards import Verdict
from katlab.step_srpo import stage as step_srpo
from katlab.step_srpo import trainer as step_srpo_trainer
from katlab.step_srpo.config import StepSRPOConfig
from katlab.step_srpo.trainer import StepSRPOTrainer

pytestmark = pytest.mark.slow


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
    monkeypatch.setattr(step_srpo_trainer, "reward_functions", stubs.parity)


def prepared(root: Path, **overrides) -> StageRun:
    finished(root, "04_cold_start")
    return StageRun.create(root, "r", "05_step_srpo", profile="tiny", overrides=overrides)


def test_step_srpo_trains_records_every_rollout_and_what_changed(tmp_path, parity, monkeypatch):
    ask = step_srpo.ask

    def one_unscorable(*args):
        first, *others = ask(*args)
        return [first | {"correct": None}, *others]

    monkeypatch.setattr(step_srpo, "ask", one_unscorable)
    stage = prepared(tmp_path)
    figures = step_srpo.run(stage)
    s = stage.settings
    assert figures["steps"] == s.steps and figures["unscorable"] == 1
    headline = json.loads((stage.dir / "run.json").read_text())["headline"]
    assert headline["unscorable"] == 1 and "think_on_rate" in headline
    rollouts = read_jsonl(stage.dir / "rollouts.jsonl")
    assert len(rollouts) == s.steps * s.prompts_per_step * s.trainer.num_generations
    assert {row["problem"] for row in rollouts} <= {None, *template.PROBLEMS}
    parts = {"judge", "thought", "answer", "judge_tokens", "thought_tokens", "answer_tokens"}
    assert all(parts <= row.keys() and row["reason"] == "parity" for row in rollouts)
    noted = {row["name"]: row for row in read_jsonl(stage.dir / speed.FILE)}
    later = sum(row["tokens"] for row in rollouts if row["step"])  # the first step warms up
    assert noted["rollouts"]["tokens"] == later < noted["step_srpo"]["tokens"]
    assert noted["step_srpo"]["flops"] > 0 and noted["step_srpo"]["peak"] is None
    logged = [row for row in stage.metrics() if "seconds/training" in row]
    assert len(logged) == s.steps and all(row["seconds/generation"] > 0 for row in logged)
    unscorable = read_jsonl(stage.dir / "candidates.jsonl")[0]["id"]
    assert unscorable not in {row["id"] for row in rollouts}
    evaluation = read_jsonl(stage.dir / "evaluation.jsonl")
    assert [row["student"] for row in evaluation] == ["before"] * 30 + ["after"] * 30
    assert not same(
        stage.checkpoints / "student", tmp_path / "r" / "04_cold_start" / "checkpoints" / "student"
    )


def test_a_resumed_step_srpo_equals_an_uninterrupted_one(tmp_path, parity):
    whole = prepared(tmp_path / "whole")
    step_srpo.run(whole)
    cut = prepared(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        step_srpo.run(interrupting(cut, at=2))
    assert not (cut.checkpoints / "student").exists()
    step_srpo.run(StageRun.open(cut.dir))
    assert same(whole.checkpoints / "student", cut.checkpoints / "student")
    assert read_jsonl(whole.dir / "rollouts.jsonl") == read_jsonl(cut.dir / "rollouts.jsonl")


@pytest.mark.parametrize("name", ["hipo", "relative"])  # of a group, of all ranks' groups
def test_two_gloo_ranks_equal_one_process(tmp_path, monkeypatch, name):
    """The same completions, whoever samples them: the same prompts per step, the same weights."""
    full_rate = {
        "step_srpo.advantages": name,
        "step_srpo.hold": 0.4,
        "step_srpo.trainer.warmup_steps": 0,
        "step_srpo.judge_consistency": "reward",  # needs every rank's judges
    }
    one = prepared(tmp_path / "one", **full_rate)
    monkeypatch.setattr(sys, "argv", ["stubs", str(one.dir)])
    runpy.run_path(stubs.__file__, run_name="__main__")
    size = {"step_srpo.trainer.per_device_train_batch_size": 8}
    two = prepared(tmp_path / "two", **full_rate, **size)
    torchrun(stubs.__file__, two.dir)
    names = ("step", "id", "completion", "advantage_judge", "advantage_answer")
    rollouts = [
        sorted([row[key] for key in names] for row in read_jsonl(stage.dir / "rollouts.jsonl"))
        for stage in (one, two)
    ]
    assert rollouts[0] == rollouts[1]
    begun = tmp_path / "one" / "r" / "04_cold_start"
    start, alone, together = (flat(folder) for folder in (begun, one.dir, two.dir))
    # Adam turns the sign of a vanishing gradient into a full step: the whole is compared.
    assert (together - alone).norm() < 0.01 * (alone - start).norm()
    assert len(read_jsonl(two.dir / "candidates.jsonl")) == two.settings.candidates


def flat(folder: Path) -> torch.Tensor:
    """All weights of a stage's student as one vector."""
    weights = load_file(folder / "checkpoints" / "student" / "model.safetensors")
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def made(folder: Path, rows: list[dict] | None = None, **arguments) -> StepSRPOTrainer:
    """A trainer of two prompts with four completions each, one step."""
    model, tokenizer = student()
    rows = rows or corpus_rows(2)
    dataset = [
        {
            "prompt": template.prompt(tokenizer, row["messages"]),
            "reference": json.dumps(row["reference"]),
            **{key: row[key] for key in ("id", "category", "difficulty", "verifier")},
        }
        for row in rows
    ]
    settings = dict(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=12,
        learning_rate=1e-3,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        shuffle_dataset=False,
        seed=0,
    )
    return StepSRPOTrainer(
        model,
        StepSRPOConfig(**settings | arguments),
        train_dataset=Dataset.from_list(dataset),
        processing_class=tokenizer,
        rollouts=folder / "rollouts.jsonl",
        names_mode="think (on|off)",
    )


@pytest.fixture
def seen(monkeypatch):
    """What TRL computed as advantages, batch by batch, before ours replaced them."""
    advantages = []
    of_trl = GRPOTrainer._generate_and_score_completions

    def noted(self, inputs):
        out = of_trl(self, inputs)
        advantages.append(out["advantages"].clone())
        return out

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", noted)
    return advantages


def batch_of(trainer: StepSRPOTrainer) -> dict:
    inputs = next(iter(trainer.get_train_dataloader()))
    return trainer._generate_and_score_completions(inputs)


@pytest.mark.parametrize("gaps", [[], [1, 6], [0, 1, 2]])
def test_grpo_is_what_trl_computes_itself(gaps, tmp_path, seen, monkeypatch):
    """Also with completions that no verifier could score, one of a group alone among them."""

    def with_gaps(*given):
        functions = stubs.parity(*given)
        earned = functions[0]

        def reward(**given):
            return [None if i in gaps else x for i, x in enumerate(earned(**given))]

        return [reward, *functions[1:]]

    monkeypatch.setattr(step_srpo_trainer, "reward_functions", with_gaps)
    monkeypatch.setattr(StepSRPOTrainer, "_generate_single_turn", stubs.fixed)
    out = batch_of(made(tmp_path, advantages="grpo"))
    wide = seen[0].unsqueeze(1).expand_as(out["advantages"])
    assert len(set(seen[0].tolist())) > 1
    torch.testing.assert_close(out["advantages"], wide, rtol=0, atol=1e-6)


def outputs(trainer: StepSRPOTrainer, row: dict) -> list[list[int]]:
    """Right; right in a wrong layout; wrong; right and cut off before its end token."""
    right = template.judged("off", "think off.") + template.body("off", row["direct"])
    wrong = template.judged("off", "think off.") + template.body("off", "77777")
    texts = [right + "<|im_end|>", right + " more<|im_end|>", wrong + "<|im_end|>", right]
    return [trainer.processing_class(text)["input_ids"] for text in texts]


@pytest.fixture
def four(monkeypatch):
    """The trainer samples `outputs` for each query, whose right answer is known."""
    rows = [row for row in corpus_rows(30) if row["category"] == "math"][:2]

    def completions(self, prompt_ids, *_):
        return [ids for row in rows for ids in outputs(self, row)], None

    monkeypatch.setattr(StepSRPOTrainer, "_generate_single_turn", completions)
    return rows


def test_the_logged_reward_is_the_one_that_is_trained(tmp_path, four, seen):
    """Right, stray, wrong, cut: accuracy .75, and the gated reward 1, 0, 0, 1."""
    trainer = made(tmp_path, four, advantages="grpo")
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["rewards/accuracy/mean"] == pytest.approx(0.75)
    assert logged["reward"] == logged["rewards/reward/mean"] == pytest.approx(0.5)
    assert logged["reward_std"] == pytest.approx((8 * 0.25 / 7) ** 0.5)  # n - 1 below the line
    assert logged["frac_reward_zero_std"] == 0.0
    # TRL's own advantages are those of the logged reward: (r - .5) / (.57735 + 1e-4)
    assert seen[0][:4].tolist() == pytest.approx([0.866, -0.866, -0.866, 0.866], abs=1e-3)


def test_an_unscorable_rollout_leaves_the_logged_reward_alone(tmp_path, four, monkeypatch):
    answers = iter([None, False, True, True] * 2)
    verdicts = lambda rows: [Verdict(next(answers), "", 0.0) for _ in rows]  # noqa: E731
    monkeypatch.setattr(arms.rewards, "grade", verdicts)
    trainer = made(tmp_path, four)
    trainer.train()
    # known: stray and wrong (gated to 0), right, cut and right
    logged = trainer.state.log_history[0]
    assert logged["reward"] == pytest.approx(2 / 3)
    first = read_jsonl(trainer.rollouts)[0]
    assert first["correct"] is None and first["reward"] is None
    assert first["advantage_judge"] == first["advantage_answer"] == 0.0


def test_a_truncated_rollout_moves_nothing(tmp_path, four):
    trainer = made(tmp_path, four)
    out = batch_of(trainer)
    rows = read_jsonl(trainer.rollouts)
    assert [row["reward"] for row in rows[:4]] == [1.0, 0.0, 0.0, 1.0]
    # mean .5, std .5 of 1, 0, 0, 1; the cut one would have the first one's
    assert [row["advantage_answer"] for row in rows[:4]] == [1.0, -1.0, -1.0, 0.0]
    assert [row["advantage_judge"] for row in rows[:4]] == [0.3, -0.3, -0.3, 0.0]
    assert out["advantages"][3].abs().max() == 0.0 < out["advantages"][0].abs().min()


def test_the_judges_tokens_carry_the_judges_advantage(tmp_path, four):
    trainer = made(tmp_path, four)
    out = batch_of(trainer)
    ids = outputs(trainer, four[0])[0]
    end = ids.index(trainer.processing_class.get_vocab()["<think_off>"]) + 1
    tokens = out["advantages"][0, : len(ids)].tolist()
    weight = trainer.args.judge_weight
    assert tokens == pytest.approx([weight / end * 0.3] * end + [1.0] * (len(ids) - end))


@pytest.mark.parametrize(
    ("consistency", "reward", "judge", "answer"),
    [
        ("none", 1.0, 0.3, 1.0),
        ("format", 0.0, -0.1732, -0.5774),  # of 0, 0, 0, 1: mean .25, std .4330
        ("reward", 1.0, -0.2, 1.0),
    ],
)
def test_a_judge_that_names_the_other_mode_pays(
    consistency, reward, judge, answer, tmp_path, four, monkeypatch
):
    """A right direct answer after "think on.", the others as in `outputs`."""

    def completions(self, prompt_ids, *_):
        rows = [outputs(self, row) for row in four]
        text = self.processing_class.decode(rows[0][0]).replace("think off.", "think on.")
        rows[0][0] = self.processing_class(text)["input_ids"]
        return [ids for row in rows for ids in row], None

    monkeypatch.setattr(StepSRPOTrainer, "_generate_single_turn", completions)
    trainer = made(tmp_path, four, judge_consistency=consistency, judge_penalty=0.5)
    trainer.model.train()
    out = batch_of(trainer)
    first = read_jsonl(trainer.rollouts)[0]
    assert first["problem"] is None and first["correct"] is True  # its format is as it was
    assert first["reward"] == reward
    assert first["advantage_judge"] == pytest.approx(judge, abs=1e-4)
    assert first["advantage_answer"] == pytest.approx(answer, abs=1e-4)
    assert trainer._metrics["train"]["judge_agreement"] == [pytest.approx(7 / 8)]
    end = template.parse(outputs(trainer, four[0])[0], trainer.tags).judge[1]
    assert out["advantages"][0, 0].item() == pytest.approx(
        trainer.args.judge_weight / end * judge, abs=1e-2
    )


@pytest.mark.parametrize("lora", [False, True])
def test_beta_holds_the_student_near_the_cold_start(lora, tmp_path, parity):
    """TRL's own KL term works beside an advantage per token: it is logged and changes the loss."""
    logs, moved = [], []
    for beta in (0.0, 1.0):
        settings = {"beta": beta, "warmup_steps": 0, "learning_rate": 1e-3}
        overrides = {f"step_srpo.trainer.{name}": value for name, value in settings.items()}
        stage = prepared(tmp_path / str(beta), **overrides, **{"lora.enabled": lora})
        begun = tmp_path / str(beta) / "r" / "04_cold_start"
        step_srpo.train(stage, begun / "checkpoints" / "student")
        logs.append([row for row in stage.metrics() if "loss" in row])
        moved.append((flat(stage.dir) - flat(begun)).norm())
    free, held = logs
    assert "kl" not in free[0]
    assert held[0]["kl"] == pytest.approx(0, abs=1e-6) and held[-1]["kl"] > 1e-5
    assert free[-1]["loss"] != held[-1]["loss"]
    assert moved[0] != moved[1]


def test_both_end_tokens_end_a_rollout(tmp_path):
    trainer = made(tmp_path)
    vocab = trainer.processing_class.get_vocab()
    ends = {vocab["<|im_end|>"], vocab["<|endoftext|>"]}
    assert ends == set(trainer.eos_token_ids) == set(trainer.generation_config.eos_token_id)


def test_the_profile_reaches_the_trainer(tmp_path):
    changed = {"advantages": "grpo", "omega": 0.5, "trainer.temperature": 0.7}
    stage = prepared(tmp_path, **{f"step_srpo.{name}": value for name, value in changed.items()})
    made = step_srpo.arguments(stage)
    assert (made.advantages, made.omega, made.temperature) == ("grpo", 0.5, 0.7)
    assert (made.max_steps, made.generation_batch_size) == (stage.settings.steps, 16)
    assert made.reward_weights == [1.0, *[0.0] * 5]


def test_a_batch_that_does_not_divide_is_one_sentence(tmp_path):
    stage = prepared(tmp_path, **{"step_srpo.trainer.per_device_train_batch_size": 3})
    with pytest.raises(UserError, match="A batch of 16 does not divide into 1 x 3"):
        step_srpo.arguments(stage)


def test_a_bfloat16_profile_moves_its_weights_at_a_small_rate(tmp_path, parity):
    """Float32 masters: in bfloat16 a step of 1e-6 rounds to nothing for nearly all weights."""
    small = {"learning_rate": 1e-6, "warmup_steps": 0}
    settings = {f"step_srpo.trainer.{name}": value for name, value in small.items()}
    stage = prepared(tmp_path, **{"model.dtype": "bfloat16"} | settings)
    step_srpo.train(stage, tmp_path / "r" / "04_cold_start" / "checkpoints" / "student")
    begun = tmp_path / "r" / "04_cold_start" / "checkpoints" / "student" / "model.safetensors"
    (trained,) = (stage.checkpoints / "rl").glob("checkpoint-*/model.safetensors")
    before, after = load_file(begun), load_file(trained)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    moved = sum(int((after[name] != before[name].float()).sum()) for name in after)
    assert moved >= 0.99 * sum(tensor.numel() for tensor in after.values())
    saved = load_file(stage.checkpoints / "student" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}


def test_the_port_of_trls_vllm_is_a_free_one_and_a_launchers_stays(monkeypatch):
    from trl.trainer.utils import ensure_master_addr_port

    monkeypatch.setenv("MASTER_ADDR", "localhost")
    given = set()
    for _ in range(2):
        monkeypatch.setenv("MASTER_PORT", "0")  # so that what is set here is undone
        monkeypatch.delenv("MASTER_PORT")
        step_srpo.own_port()
        port = os.environ["MASTER_PORT"]
        ensure_master_addr_port()
        assert os.environ["MASTER_PORT"] == port
        with socket.socket() as taken:
            taken.bind(("", int(port)))
        given.add(port)
    assert given.isdisjoint({"29500", "23456", "12355", "12345"})
    monkeypatch.setenv("MASTER_PORT", "29777")
    step_srpo.own_port()
    assert os.environ["MASTER_PORT"] == "29777"
