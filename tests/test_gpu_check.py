"""The check of a GPU, on a machine without one: every part runs, and only a GPU's figures lack."""

import json
import sys

import pytest

from katlab import cli, models
from katlab.gpu_check import check, parts
from katlab.gpu_check.bench import Bench
from katlab.lab import profiles
from katlab.scaling_plan import planner

TIMES = ("step_s", "tokens_per_s")


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["real-0.5b", "proxy-1.5b"])
def test_a_tiny_check_runs_every_part_and_ends_with_json(profile, capsys):
    assert cli.main(["gpu-check", "--profile", profile, "--tiny"]) == 0
    told = capsys.readouterr().out.splitlines()
    found = json.loads(told[-1])
    assert [line.partition(":")[0] for line in told if line[0] != " "][:-1] == [*parts.PARTS]
    assert check.failed(found) == [] and found["profile"] == profile
    for name in ("full", "lora", "qlora", "sft", "distillation"):
        part = found[name]
        assert all(part[key] > 0 for key in TIMES) and part["mfu"] is None
    assert found["full"]["rows_per_step"] == 2 and 500 < found["full"]["tokens_per_step"] <= 512
    assert found["full"]["planned_gib"] > found["lora"]["planned_gib"] > 0
    assert found["lora"]["memory_error"] is None, "no GPU's memory is counted here"
    assert found["rollouts"]["engine"] == "transformers" and found["rollouts"]["tokens_per_s"] > 0
    steps = found["step_srpo"]
    assert steps["rollouts"] == 8 and steps["gpu_busy"] is None
    assert steps["step_s"] == pytest.approx(
        sum(steps[f"{phase}_s"] for phase in ("generation", "rewards", "training")), abs=0.02
    )


@pytest.mark.slow
def test_a_part_that_fails_is_one_sentence_and_the_others_go_on(capsys, monkeypatch):
    def broken(bench):
        raise RuntimeError("out of luck\nand more of it")

    monkeypatch.setattr(parts, "PARTS", {"full": broken, "weights": parts.PARTS["weights"]})
    assert cli.main(["gpu-check", "--profile", "tiny", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["full"]["error"] == "RuntimeError: out of luck"
    assert found["weights"]["layers"] == 3 and found["tiny"]


def test_without_a_gpu_it_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(["gpu-check"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    assert said.err.startswith("There is no GPU") and "--tiny" in said.err


def test_what_a_process_did_not_come_to_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "GROUPS", (("full", "lora"), ("rollouts",)))
    monkeypatch.setattr(check, "log", lambda: tmp_path / "log" / "gpu-check.log")

    def child(folder, profile, group, limit, words):
        if "full" in group:
            (folder / parts.FOUND).write_text('{"full": {"step_s": 1.0}}\n')
        return "it took longer than 180 seconds"

    monkeypatch.setattr(check, "child", child)
    found = check._apart(tmp_path, "tiny", lambda name, one: None)
    assert found["full"] == {"step_s": 1.0} and check.failed(found) == ["lora", "rollouts"]
    assert found["lora"]["error"] == "Not measured: it took longer than 180 seconds."


@pytest.mark.parametrize(
    "does, limit, told",
    [("exit 7", 60, "its process ended with status 7; see"), ("sleep 60", 0.1, "longer than")],
)
def test_a_process_that_fails_or_hangs_is_over(tmp_path, monkeypatch, does, limit, told):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with (tmp_path / "log").open("w") as words:
        assert told in check.child(tmp_path, "tiny", ("full",), limit, words)


def test_rows_are_as_long_as_they_are_asked_to_be(tmp_path):
    bench = Bench(tmp_path, "real-0.5b", tiny=True)
    bench.write()
    tokenizer = models.tokenizer(tmp_path / "tagged")
    lengths = [len(parts.cold_start.encode(tokenizer, r, None)["input_ids"]) for r in bench.rows()]
    assert max(lengths) <= bench.sizes.length and lengths[7] > 252
    plain = models.tokenizer(tmp_path / "student").get_vocab()
    assert "<judge>" in tokenizer.get_vocab() and "<judge>" not in plain


def test_what_a_step_allocates_by_hand():
    shape = dict(
        model_type="qwen2", hidden_size=8, intermediate_size=16, num_attention_heads=2,
        num_key_value_heads=1, num_hidden_layers=3, vocab_size=100, tie_word_embeddings=True,
    )  # fmt: skip
    # head size 4; r x (in + out): q and o 16, k and v 12, three of the MLP 24 each
    lora = profiles.load("real-0.5b").lora
    assert planner.adapters(shape, 2, lora.target_modules) == 3 * 2 * (2 * 16 + 2 * 12 + 3 * 24)
    tokens = 50
    work, inputs = 2 * tokens * (14 * 8 + 8 * 16), 2 * tokens * 8 * 3  # more than a tile of logits
    total = planner.parameters(shape)["total"]
    full, lora, qlora = (
        planner.step_gib(shape, scheme, tokens, adapter) * 2**30
        for scheme, adapter in zip(parts.SCHEMES.values(), (0, 10, 10), strict=True)
    )
    assert full == pytest.approx(16 * total + work)
    assert lora == pytest.approx(2 * total + work + inputs + 160)
    apart = total - planner.parameters(shape)["layers"]
    frozen = 4.127 / 8 * (total - apart) + 4 * apart
    assert qlora == pytest.approx(frozen + work + 2 * inputs + 160)
