"""The cold start's trainer on real nano weights: what is learned, LoRA, two ranks, resume."""

from pathlib import Path

import pytest
import torch
from trainers import corpus_rows, finished, interrupting, same, torchrun

from katlab import models
from katlab.cold_start import stage as cold_start
from katlab.cold_start.corpus import encode
from katlab.lab import StageRun, load_profile, read_jsonl, write_jsonl

pytestmark = pytest.mark.slow


def prepared_sft(root: Path, **overrides) -> StageRun:
    finished(root, "03_mtp_distillation")
    replayed = [{k: v for k, v in row.items() if k != "judge"} for row in corpus_rows(64)]
    write_jsonl(finished(root, "02_dual_regime_data").dir / "corpus.jsonl", replayed)
    stage = StageRun.create(root, "r", "04_cold_start", profile="tiny", overrides=overrides)
    for name in ("votes", "corpus"):
        write_jsonl(stage.dir / f"{name}.jsonl", corpus_rows(64))
    return stage


def train(stage: StageRun) -> dict[str, float]:
    return cold_start.train(stage, read_jsonl(stage.dir / "corpus.jsonl"))


def test_a_resumed_cold_start_equals_an_uninterrupted_one(tmp_path):
    whole = prepared_sft(tmp_path / "whole")
    train(whole)
    cut = prepared_sft(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train(interrupting(cut, at=3))
    train(StageRun.open(cut.dir))
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
    train(stage)
    tokenizer = models.load_from(stage.checkpoints / "student", stage.config.model)[1]
    corpus = read_jsonl(stage.dir / "corpus.jsonl")
    stage_1 = read_jsonl(tmp_path / "r" / "02_dual_regime_data" / "corpus.jsonl")
    rows = [encode(tokenizer, row, stage.config.prompts) for row in corpus + stage_1]
    expected = {tuple(row["input_ids"]): sum(row["completion_mask"]) for row in rows}
    assert seen
    for ids, labels in ((i, x) for batch in seen for i, x in zip(*batch, strict=True)):
        row = tuple(ids[: len(ids) - int((ids == tokenizer.pad_token_id).sum())].tolist())
        learned = labels != -100
        assert int(learned.sum()) == expected[row]
        assert torch.equal(labels[learned], ids[learned])


def test_cold_start_takes_the_lora_path_at_nano_size(tmp_path):
    stage = prepared_sft(tmp_path, **LORA)
    train(stage)
    before = models.load_from(
        tmp_path / "r" / "03_mtp_distillation" / "checkpoints" / "student", stage.config.model
    )[0].state_dict()
    after = models.load_from(stage.checkpoints / "student", stage.config.model)[0].state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any("q_proj" in key for key in changed)  # adapters were trained and merged
    assert not any("layernorm" in key for key in changed)  # and nothing else of a layer was


def test_two_gloo_ranks(tmp_path):
    stage = prepared_sft(tmp_path, **{"cold_start.batch_size": 8})
    torchrun("-m", "katlab.lab.launch", stage.name, "--dir", stage.dir)
    assert (stage.checkpoints / "student" / "model.safetensors").is_file()


def test_profiles_from_1_5b_up_describe_their_models():
    assert load_profile("proxy-1.5b").lora.enabled and not load_profile("target-40b").lora.enabled
    assert not load_profile("nano").lora.enabled
