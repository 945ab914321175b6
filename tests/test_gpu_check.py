"""The check of a GPU, on a machine without one: every phase runs, and only a GPU's figures lack."""

import json
import runpy
import sys

import pytest
from conftest import CHECKOUT


@pytest.mark.slow
def test_the_check_runs_and_prints_json(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    check = runpy.run_path(str(CHECKOUT / "benchmarks" / "gpu_check.py"))
    check["main"](["--profile", "tiny", "--steps", "2", "--prompts", "4", "--tokens", "8"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["rollout_tokens_per_s"]["transformers"] > 0
    assert "pip install '.[vllm]'" in found["rollout_tokens_per_s"]["vllm"]
    for stage in ("03_mtp_distillation", "04_cold_start"):
        trained = found["training"][stage]
        assert trained["tokens_per_s"] > 0 and trained["mfu"] is None
    assert found["05_step_srpo"]["rollouts_per_step"] == 4 * 4
    assert found["05_step_srpo"]["seconds_per_step"] > 0
