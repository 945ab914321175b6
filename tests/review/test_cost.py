"""What a review says of speed, time and weights: by hand, over two seeds, and of older runs."""

import json
from pathlib import Path

import pytest
from reviewed import STAGES, make

from katlab import speed
from katlab.review import accepted, cost, pages, summary

H100 = "NVIDIA H100 80GB HBM3"
REPORTED = 'extends = "nano"\n[seeds]\ntuning = [100]\nreported = [7, 8]\n'
KEYS = {
    *("device", "gpu_minutes", "minutes_by_stage"),
    *("rollout_tokens_per_s", "mfu", "weights"),
}


@pytest.fixture
def outputs(tmp_path) -> Path:
    """Two finished runs, each stage of them 60 or 120 seconds long."""
    profile = tmp_path / "mine.toml"
    profile.write_text(REPORTED)
    given = {"model.student": "/data/qwen-0.5b", "model.weights": "dequantised q4_k_m"}
    for seed, seconds in ((7, 60), (8, 120)):
        run = make(tmp_path, f"s{seed}", seed, profile=str(profile), overrides=given)
        for name in STAGES:
            path = run / name / "run.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": seconds}))
    return tmp_path


def note(monkeypatch, folder: Path, device: str, *given) -> None:
    monkeypatch.setattr(speed, "device", lambda: device)
    part, name, tokens, seconds, *flops = given
    more = {"flops": flops[0], "peak": 1e12 if device != "CPU" else None} if flops else {}
    speed.note(folder, part, name, tokens, seconds, **more)


def test_speed_is_of_all_runs_and_minutes_of_one(outputs, monkeypatch):
    for run, tokens in (("s7", 3000), ("s8", 1000)):
        rl, sft = outputs / run / STAGES[2], outputs / run / STAGES[1]
        note(monkeypatch, rl, H100, "sampling", "rollouts", tokens, 1.0)
        note(monkeypatch, rl, H100, "sampling", "replies", 9, 1.0)
        note(monkeypatch, rl, H100, "training", "step_srpo", 10, 2.0, 1e11)
        note(monkeypatch, sft, H100, "training", "cold start", 10, 1.0, tokens * 1e8)
    found = cost.of(accepted.runs(outputs, ["s7", "s8"]).reported)
    assert found == {
        "device": H100,
        "gpu_minutes": 6.0,
        "minutes_by_stage": dict.fromkeys(STAGES, 1.5),
        "rollout_tokens_per_s": 2000,
        "mfu": {STAGES[1]: 0.2, STAGES[2]: 0.05},
        "weights": "qwen-0.5b, dequantised q4_k_m",
    }
    assert cost.told(found) == (
        f"Weights: qwen-0.5b, dequantised q4_k_m. One run took 6.0 minutes on {H100} (03 1.5, 04 "
        "1.5, 05 1.5, 06 1.5). Rollouts came at 2,000 tokens/s. MFU in training: 04 20 %, 05 5 %."
    )


def test_a_cpu_has_no_gpu_minutes_and_no_mfu(outputs, monkeypatch):
    note(monkeypatch, outputs / "s7" / STAGES[1], "CPU", "training", "cold start", 10, 1.0, 1e9)
    found = cost.of(accepted.runs(outputs, ["s7", "s8"]).reported)
    assert found["device"] == "CPU" and found["gpu_minutes"] is None
    assert found["mfu"] == {STAGES[1]: None} and "MFU" not in cost.told(found)


def test_runs_that_noted_nothing_have_minutes_and_weights(outputs):
    made = summary.of(accepted.runs(outputs, ["s7", "s8"]))
    assert {*KEYS} <= {*made} and made["minutes_by_stage"][STAGES[0]] == 1.5
    assert [made[key] for key in ("device", "gpu_minutes", "rollout_tokens_per_s")] == [None] * 3
    assert cost.told(made) == "Weights: qwen-0.5b, dequantised q4_k_m."
    assert cost.told({}) == "", "a review from before there were such notes"


def test_the_pages_say_where_the_weights_come_from(outputs):
    out = pages.write(accepted.runs(outputs, ["s7", "s8"]), outputs / "reviews" / "mine")
    for name in ("README.md", "index.html"):
        assert "Weights: qwen-0.5b, dequantised q4_k_m." in (out / name).read_text()
        assert "/data" not in (out / name).read_text()
