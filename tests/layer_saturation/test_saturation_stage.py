"""Stage 01 as a whole, on nano's base: quantised, on two ranks, cut off and opened again."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import pytest
import transformers
from conftest import CHECKOUT
from transformers import AutoTokenizer

from katlab import UserError, models
from katlab.lab import StageRun
from katlab.layer_saturation import calibration, study, verify
from katlab.layer_saturation import stage as layer_saturation
from katlab.layer_saturation.plan import LayerPlan

NAME = "01_layer_saturation"
BASE = CHECKOUT / "data_samples/nano/base"


def made(root: Path, start: str = "half-step", **model) -> StageRun:
    """The stage on profile tiny, without SmolLM2; `model` overrides keys of [model]."""
    overrides = {f"model.{key}": value for key, value in model.items()}
    overrides |= {"layer_saturation.start": start}
    overrides |= {"layer_saturation.real_tokens": 0, "layer_saturation.queries": 8}
    return StageRun.create(root, "run", NAME, profile="tiny", overrides=overrides)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> StageRun:
    """One finished run in this process."""
    stage = made(tmp_path_factory.mktemp("plain"))
    layer_saturation.run(stage)
    return stage


def files(stage: StageRun) -> dict[str, bytes]:
    """What the work left, without what depends on the clock and on the folder's own place."""
    clock = {"run.json", "progress.json", "result.json", "upscale.json", "speed.jsonl"}
    paths = [p for p in stage.dir.rglob("*") if p.is_file() and p.name not in clock]
    return {str(p.relative_to(stage.dir)): p.read_bytes() for p in paths}


@pytest.mark.parametrize("family", ["MistralConfig", "Gemma2Config"])
def test_a_parent_of_another_family_goes_through_the_whole_stage(family, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    config = getattr(transformers, family)(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=4,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, pad_token_id=0, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    transformers.set_seed(0)
    parent = transformers.AutoModelForCausalLM.from_config(config)
    parent.save_pretrained(tmp_path / "parent")
    tokenizer.save_pretrained(tmp_path / "parent")
    start = "zero"  # the only one that a norm behind the projections leaves exact
    stage = made(tmp_path, start, student=str(tmp_path / "parent"))
    figures = layer_saturation.run(stage)
    written = transformers.AutoModelForCausalLM.from_pretrained(stage.checkpoints / "student")
    assert written.config.num_hidden_layers == figures["layers"] > 4
    assert sum(p.numel() for p in written.parameters()) == figures["parameters"]


@pytest.mark.parametrize("text", ["nano", ""])
def test_no_more_sequences_are_read_at_once_than_the_profile_says(text, tmp_path):
    overrides = {f"layer_saturation.{k}": v for k, v in (("text", text), ("sequences_at_once", 3))}
    stage = StageRun.create(tmp_path, "run", NAME, profile="tiny", overrides=overrides)
    found = calibration.of_stage(stage, AutoTokenizer.from_pretrained(BASE))
    sizes = [len(batch["input_ids"]) for part in astuple(found) for batch in part]
    assert max(sizes) == 3


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
@pytest.mark.parametrize("start", ["half-step", "zero"])
def test_a_quantised_parent_is_measured_and_its_student_written_from_its_files(
    kind, start, tmp_path
):
    stage = made(tmp_path, start, quantize=kind)
    figures = layer_saturation.run(stage)
    plan = LayerPlan.load(stage.dir / "layer_plan.json")
    assert verify.files(BASE, stage.checkpoints / "student", plan) > 0
    assert figures["layers"] == plan.child_layers == 5
    assert abs(figures["predicted_change"] - figures["loss_change"]) < 1e-2
    assert (figures["kl"] == 0.0) is (start == "zero")
    (own,) = study.load(stage)
    assert len(own.layers) == 4 and len(own.starts) == len(study.VARIANTS)
    assert own.recovery.empty, "packed weights are not trained"


def test_quantised_files_are_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    shutil.copytree(BASE, tmp_path / "packed")
    config = json.loads((BASE / "config.json").read_text())
    packed = config | {"quantization_config": {"quant_method": "bitsandbytes"}}
    (tmp_path / "packed/config.json").write_text(json.dumps(packed))
    monkeypatch.setattr(models, "load", None)
    with pytest.raises(UserError, match="upscale the original weights"):
        layer_saturation.run(made(tmp_path, student=str(tmp_path / "packed"), quantize="4bit"))


def test_a_hub_id_is_written_from_its_files_too(tmp_path, monkeypatch):
    asked = []

    def snapshot(repository, allow_patterns):
        asked.append((repository, "*.safetensors" in allow_patterns))
        return str(BASE)

    monkeypatch.setattr(layer_saturation, "snapshot_download", snapshot)
    stage = made(tmp_path, student="somebody/nano")
    assert layer_saturation.parent_folder(stage.config.model) == BASE
    assert asked == [("somebody/nano", True)]

    def nowhere(*_, **__):
        raise OSError("offline\nand more")

    monkeypatch.setattr(layer_saturation, "snapshot_download", nowhere)
    with pytest.raises(UserError, match=r"somebody/nano could not be fetched \(offline\); give a"):
        layer_saturation.run(stage)


@pytest.mark.slow
def test_two_ranks_leave_the_files_of_one_process(plain, tmp_path):
    stage = made(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", "0", "-m", "katlab.lab.launch", NAME, "--dir", str(stage.dir)]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "KATLAB_ROOT": str(CHECKOUT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files(stage).keys() == files(plain).keys()
    assert files(stage) == files(plain)


def test_opened_again_nothing_is_measured_and_a_cut_off_run_keeps_its_tables(
    plain, tmp_path, monkeypatch
):
    before = files(plain)
    shutil.copytree(plain.dir, tmp_path / NAME)
    for done in ("figures.jsonl", "result.json", "recovery.csv", "layer_plan.json"):
        (tmp_path / NAME / done).unlink(missing_ok=True)
    (tmp_path / NAME / "metrics.jsonl").unlink()
    for measure in (study.similarity, study.layer_damage):
        monkeypatch.setattr(measure, "measure", None)
    monkeypatch.setattr(layer_saturation.writer, "write", None)
    cut_off = StageRun.open(tmp_path / NAME)
    layer_saturation.run(cut_off)
    assert files(cut_off) == before
    monkeypatch.setattr(models, "load", None)
    assert layer_saturation.run(plain) == layer_saturation.run(cut_off)
    assert files(plain) == before
