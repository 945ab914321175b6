"""Stage 04 on real nano weights: what is learned, masters, LoRA, two ranks, resume, its figures."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from trainers import corpus_rows, finished, interrupting, same, torchrun

from katlab import models
from katlab.cold_start import stage as cold_start
from katlab.cold_start.corpus import encode
from katlab.lab import StageRun, load_profile, read_jsonl, write_jsonl

pytestmark = pytest.mark.slow
LORA = {"lora.enabled": True, "lora.r": 4}


def prepared(root: Path, **overrides) -> StageRun:
    """Stage 04 with its votes and its corpus there, to be trained from the untrained student."""
    finished(root, "03_mtp_distillation")
    replayed = [{k: v for k, v in row.items() if k != "judge"} for row in corpus_rows(64)]
    write_jsonl(finished(root, "02_dual_regime_data").dir / "corpus.jsonl", replayed)
    stage = StageRun.create(root, "r", "04_cold_start", profile="tiny", overrides=overrides)
    corpus = corpus_rows(64)
    write_jsonl(stage.dir / "votes.jsonl", corpus)
    write_jsonl(stage.dir / "corpus.jsonl", corpus)
    write_jsonl(stage.dir / "dropped.jsonl", corpus[:16])
    return stage


def train(stage: StageRun) -> dict[str, float]:
    return cold_start.train(stage, read_jsonl(stage.dir / "corpus.jsonl"))


def watched(monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor, set[torch.dtype]]]:
    """Input ids, labels and the dtypes of what is trained, of every micro-batch to come."""
    seen = []

    class Looks(cold_start.SFTTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            dtypes = {p.dtype for p in model.parameters() if p.requires_grad}
            seen.append((inputs["input_ids"].clone(), inputs["labels"].clone(), dtypes))
            return super().compute_loss(model, inputs, *args, **kwargs)

    monkeypatch.setattr(cold_start, "SFTTrainer", Looks)
    return seen


def test_a_resumed_cold_start_equals_an_uninterrupted_one(tmp_path):
    whole = prepared(tmp_path / "whole")
    expected = train(whole)
    cut = prepared(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train(interrupting(cut, at=3))
    assert train(StageRun.open(cut.dir)) == expected
    assert same(whole.checkpoints / "student", cut.checkpoints / "student")


def test_the_cold_start_learns_completions_and_no_prompt(tmp_path, monkeypatch):
    """TRL drops a completion_mask beside input_ids unless told otherwise."""
    seen, stage = watched(monkeypatch), prepared(tmp_path)
    train(stage)
    tokenizer = models.load_from(stage.checkpoints / "student", stage.config.model)[1]
    corpus = read_jsonl(stage.dir / "corpus.jsonl")
    stage_1 = read_jsonl(tmp_path / "r" / "02_dual_regime_data" / "corpus.jsonl")
    rows = [encode(tokenizer, row, stage.config.prompts) for row in corpus + stage_1]
    expected = {tuple(row["input_ids"]): sum(row["completion_mask"]) for row in rows}
    assert seen
    for ids, labels in ((i, x) for *batch, _ in seen for i, x in zip(*batch, strict=True)):
        row = tuple(ids[: len(ids) - int((ids == tokenizer.pad_token_id).sum())].tolist())
        learned = labels != -100
        assert int(learned.sum()) == expected[row]
        assert torch.equal(labels[learned], ids[learned])


def test_a_row_too_long_is_left_out_and_counted(tmp_path, monkeypatch):
    """Cut at the end, as TRL does, it would teach an answer without its end token."""
    seen, stage = watched(monkeypatch), prepared(tmp_path, **{"cold_start.max_length": 72})
    result = train(stage)
    tokenizer = models.load_from(stage.checkpoints / "student", stage.config.model)[1]
    corpus = read_jsonl(stage.dir / "corpus.jsonl")
    replayed = [row for row in corpus if row["mode"] == "off"]  # stage 02's, without their judge
    replayed = [{k: v for k, v in row.items() if k != "judge"} for row in replayed]
    widths = [
        len(encode(tokenizer, row, stage.config.prompts)["input_ids"]) for row in corpus + replayed
    ]
    assert result["rows_too_long"] == sum(width > 72 for width in widths) > 0
    learned = [x[x != -100].tolist() for _, labels, _ in seen for x in labels]
    assert len(learned) == stage.settings.steps * stage.settings.batch_size
    assert {row[-1] for row in learned} == {tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_a_bfloat16_profile_trains_float32_masters(tmp_path, monkeypatch):
    seen, stage = watched(monkeypatch), prepared(tmp_path, **{"model.dtype": "bfloat16"})
    train(stage)
    assert {dtype for *_, dtypes in seen for dtype in dtypes} == {torch.float32}
    saved = load_file(stage.checkpoints / "student" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}


def test_cold_start_takes_the_lora_path_at_nano_size(tmp_path):
    stage = prepared(tmp_path, **LORA)
    train(stage)
    before = models.load_from(
        tmp_path / "r" / "03_mtp_distillation" / "checkpoints" / "student", stage.config.model
    )[0].state_dict()
    after = models.load_from(stage.checkpoints / "student", stage.config.model)[0].state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any("q_proj" in key for key in changed)  # adapters were trained and merged
    assert not any("layernorm" in key for key in changed)  # and nothing else of a layer was


def weights(folder: Path) -> torch.Tensor:
    tensors = load_file(folder / "checkpoints" / "student" / "model.safetensors")
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])


def test_two_ranks_equal_one_process_with_the_same_batch(tmp_path):
    """Batches count rows over all ranks: both see the same rows in every step, once."""
    smaller = {"cold_start.trainer.per_device_train_batch_size": 4}
    one, two = prepared(tmp_path / "one"), prepared(tmp_path / "two", **smaller)
    cold_start.run(one)
    torchrun("-m", "katlab.lab.launch", two.name, "--dir", two.dir)
    start = weights(tmp_path / "one" / "r" / "03_mtp_distillation")
    moved = (weights(one.dir) - start).norm()
    assert (weights(one.dir) - weights(two.dir)).norm() < 0.02 * moved
    logged = [[row["loss"] for row in s.metrics() if "loss" in row] for s in (one, two)]
    assert logged[0] == pytest.approx(logged[1], abs=2e-3) and len(logged[0]) == 4
    assert {row["epoch"] for row in two.metrics() if row.get("epoch", 0) > 1} == set()


def test_a_run_measures_the_student_on_held_out_queries(tmp_path, monkeypatch):
    stage = prepared(tmp_path)
    frame = pd.DataFrame({"mode": ["on", "on", "off", None], "problem": [None, None, None, "x"]})
    frame["correct"] = pd.Series([True, None, True, False], dtype=object)
    asked = []

    def run_arm(stage, model, tok, rows, arm, **how):
        asked.append((rows, arm, how["max_new_tokens"]))
        return frame

    monkeypatch.setattr(cold_start.arms, "run_arm", run_arm)
    trained = {"rows_too_long": 0, "train_loss": 1.0}
    monkeypatch.setattr(cold_start, "train", lambda *_: dict(trained))
    monkeypatch.setattr(cold_start.models, "load_from", lambda *_: (None, None))
    figures = cold_start.run(stage)
    assert figures == trained | {
        "rows": 64,
        "unscorable_queries": stage.settings.queries - 64,
        "on_to_off": 1.0,
        "random_mode_share": 0.0,
        "contradictions": 0.2,
        "think_on_rate": 0.5,
        "well_formed": 0.75,
        "accuracy": pytest.approx(2 / 3),
        "unscorable": 1,
    }
    ((rows, arm, limit),) = asked
    assert len(rows) == 30 and arm == "auto" and limit == stage.settings.max_new_tokens
    assert all("-eval-" in row["id"] for row in rows)
    kept = read_jsonl(stage.dir / "evaluation.jsonl")
    assert [row["correct"] for row in kept] == [True, None, True, False]


def test_a_batch_means_rows_per_step_in_every_profile():
    for name, size in (("nano", 32), ("tiny", 16), ("smol-135m", 64), ("proxy-1.5b", 64)):
        assert load_profile(name).cold_start.batch_size == size


def test_profiles_from_1_5b_up_describe_their_models():
    assert load_profile("proxy-1.5b").lora.enabled and not load_profile("target-40b").lora.enabled
    assert not load_profile("nano").lora.enabled
