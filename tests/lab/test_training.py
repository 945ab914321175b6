"""Trainer arguments: one meaning of batch_size, TRL's own names passed through, no silent loss."""

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from trl import GRPOConfig, SFTConfig

from katlab import UserError
from katlab.lab import StageRun, training
from katlab.lab.training import arguments


def stage(tmp_path, name: str = "04_cold_start", **overrides) -> StageRun:
    section = name.partition("_")[2]
    given = {f"{section}.{key.replace('__', '.')}": value for key, value in overrides.items()}
    made = StageRun.create(tmp_path, "r", name, profile="tiny", seed=3, overrides=given)
    own = {key.removeprefix("trainer__"): v for key, v in overrides.items() if "__" in key}
    made.settings.trainer = own  # what the profile says is the stages' matter
    made.begun = made.config.model_dump()
    return made


@pytest.mark.parametrize("config_class", [TrainingArguments, SFTConfig])
def test_what_all_trainers_share_comes_from_the_stage(tmp_path, config_class):
    made = arguments(
        stage(tmp_path, steps=7),
        config_class,
        output_dir=str(tmp_path / "sft"),
        batch_size=12,
        learning_rate=1e-3,
    )
    assert type(made) is config_class
    assert (made.max_steps, made.seed, made.report_to) == (7, 3, [])
    assert (made.bf16, made.disable_tqdm, made.save_total_limit) == (False, True, 1)
    assert made.use_cpu == (not torch.accelerator.is_available())
    assert (made.learning_rate, made.output_dir) == (1e-3, str(tmp_path / "sft"))
    assert (made.per_device_train_batch_size, made.gradient_accumulation_steps) == (12, 1)


@pytest.mark.parametrize(
    ("ranks", "per_device", "batch", "expected"),
    [
        ("1", None, 32, (32, 1)),
        ("1", 8, 32, (8, 4)),
        ("2", None, 32, (16, 1)),
        ("2", 4, 32, (4, 4)),
        ("4", 1, 4, (1, 1)),
    ],
)
def test_a_batch_counts_rows_over_ranks_and_accumulations(
    tmp_path, monkeypatch, ranks, per_device, batch, expected
):
    """cold_start took `batch_size` for a rank's micro-batch: two ranks trained on twice as many."""
    own = {} if per_device is None else {"trainer__per_device_train_batch_size": per_device}
    made = stage(tmp_path, **own)
    monkeypatch.setenv("WORLD_SIZE", ranks)
    seen = {}

    class Config(TrainingArguments):
        def __init__(self, **values):
            seen.update(values)

    arguments(made, Config, output_dir="x", batch_size=batch)
    found = seen["per_device_train_batch_size"], seen["gradient_accumulation_steps"]
    assert found == expected
    assert found[0] * found[1] * int(ranks) == batch


@pytest.mark.parametrize(
    ("ranks", "per_device", "batch"), [("1", 5, 32), ("3", 4, 32), ("8", 1, 4), ("1", 0, 4)]
)
def test_a_batch_that_does_not_divide_is_one_sentence(
    tmp_path, monkeypatch, ranks, per_device, batch
):
    made = stage(tmp_path, trainer__per_device_train_batch_size=per_device)
    monkeypatch.setenv("WORLD_SIZE", ranks)
    with pytest.raises(UserError, match=f"A batch of {batch} does not divide into {ranks} x"):
        arguments(made, SFTConfig, output_dir="x", batch_size=batch)


def test_a_batch_smaller_than_the_ranks_is_refused(tmp_path, monkeypatch):
    made = stage(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(UserError, match="does not divide"):
        arguments(made, SFTConfig, output_dir="x", batch_size=4)


def test_the_trainers_table_is_passed_through(tmp_path):
    own = {"trainer__mask_truncated_completions": True, "trainer__scale_rewards": "none"}
    made = arguments(
        stage(tmp_path, **own, trainer__save_total_limit=3),
        GRPOConfig,
        output_dir=str(tmp_path),
        batch_size=16,
        num_generations=4,
    )
    assert made.mask_truncated_completions and made.scale_rewards == "none"
    assert made.save_total_limit == 3
    assert made.num_generations == 4


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "learning_rat",
            1,
            "There is no 'cold_start.trainer.learning_rat'; did you mean 'learning",
        ),
        ("omega", 1, "There is no 'cold_start.trainer.omega'"),
        ("seed", 1, "Leave out cold_start.trainer.seed: it is set by --seed"),
        ("max_steps", 1, "it is set by cold_start.steps"),
        ("num_train_epochs", 3, "it is set by cold_start.steps"),
        ("gradient_accumulation_steps", 2, "batch_size and per_device_train_batch_size"),
        ("learning_rate", 1.0, "it is set by the stage, from"),
        ("lr_scheduler_type", "cosin", "cosin is not a valid SchedulerType"),
        ("num_generations", 5, "divisible by num_generations"),
    ],
)
def test_a_mistake_in_the_trainers_table_is_one_sentence(tmp_path, key, value, words):
    made = stage(tmp_path, **{f"trainer__{key}": value})
    with pytest.raises(UserError, match=words) as mistake:
        arguments(made, GRPOConfig, output_dir="x", batch_size=16, learning_rate=1e-4)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("wandbb", "no tracker 'wandbb' for report_to; did you mean 'wandb'"),
     ("wandb", r"package of tracker 'wandb' is not installed; install it \(pip install wandb\)")],
)  # fmt: skip
def test_a_tracker_that_is_not_there_is_one_sentence(tmp_path, monkeypatch, name, words):
    from transformers import integrations

    monkeypatch.setattr(integrations, "get_available_reporting_integrations", lambda: [])
    made = stage(tmp_path)
    made.report_to = name
    with pytest.raises(UserError, match=words):
        arguments(made, SFTConfig, output_dir="x", batch_size=4)


class Line(torch.nn.Module):
    """y = w x, with the loss that a Trainer wants."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, labels):
        return {"loss": ((self.w * x - labels) ** 2).mean()}


class Steps(TrainerCallback):
    """The steps that were really done."""

    def __init__(self, seen: list[int]):
        self.seen = seen

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(state.global_step)


def test_training_goes_on_from_its_newest_checkpoint(tmp_path):
    rows = [{"x": float(i % 3), "labels": 2.0 * (i % 3)} for i in range(8)]
    seen = []

    def train(steps: int):
        made = stage(tmp_path, trainer__save_steps=2, trainer__logging_steps=1, steps=steps)
        own = arguments(made, TrainingArguments, output_dir=str(made.checkpoints), batch_size=2)
        told = made.callback(show={"loss": "loss"})
        training.train(Trainer(Line(), own, train_dataset=rows, callbacks=[told, Steps(seen)]))
        return made, [step for step, _ in told.bar.curves["loss"]]

    assert training.latest_checkpoint(train(2)[0].checkpoints).endswith("checkpoint-2")
    made, drawn = train(4)
    assert drawn == [1, 2, 3, 4], "the curve begins where training first began"
    assert seen == [1, 2, 3, 4]
    assert training.latest_checkpoint(made.checkpoints).endswith("checkpoint-4")
    assert [row["step"] for row in made.metrics() if "loss" in row] == [1, 2, 3, 4]


def test_settings_changed_by_hand_train_nothing(tmp_path):
    """`train(stage)` with another learning rate resumed the finished checkpoint in 0 s."""
    made = stage(tmp_path)
    made.settings.trainer["learning_rate"] = 0.5
    with pytest.raises(UserError, match="Settings changed in this notebook"):
        arguments(made, SFTConfig, output_dir="x", batch_size=4)
