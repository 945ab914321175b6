"""The check of a GPU, on a machine without one: every part runs, and only a GPU's figures lack."""

import json
import sys

import pytest
import torch
from conftest import CHECKOUT
from transformers import AutoConfig, AutoModelForCausalLM

from katlab import adapters, cli, models
from katlab.gpu_check import check, parts, planned
from katlab.gpu_check.bench import Bench
from katlab.lab import profiles
from katlab.scaling_plan import planner, steps

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
    timed = found["step_srpo"]
    assert timed["rollouts"] == 8 and timed["gpu_busy"] is None
    assert timed["step_s"] == pytest.approx(
        sum(timed[f"{phase}_s"] for phase in ("generation", "rewards", "training")), abs=0.02
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
    assert steps.adapters(shape, 2, lora.target_modules) == 3 * 2 * (2 * 16 + 2 * 12 + 3 * 24)
    tokens = 50
    work, inputs = 2 * tokens * (14 * 8 + 8 * 16), 2 * tokens * 8 * 3  # more than a tile of logits
    total = planner.parameters(shape)["total"]
    full, lora, qlora = (
        steps.step_gib(shape, scheme, tokens, adapter) * 2**30
        for scheme, adapter in zip(planned.SCHEMES.values(), (0, 10, 10), strict=True)
    )
    assert full == pytest.approx(16 * total + work)
    assert lora == pytest.approx(2 * total + work + inputs + 160)
    apart = total - planner.parameters(shape)["layers"]
    frozen = 4.127 / 8 * (total - apart) + 4 * apart
    assert qlora == pytest.approx(frozen + work + 2 * inputs + 160)


def test_what_a_step_without_checkpoints_allocates_by_hand():
    shape = dict(
        model_type="qwen2", hidden_size=8, intermediate_size=16, num_attention_heads=2,
        num_key_value_heads=1, num_hidden_layers=3, vocab_size=100, tie_word_embeddings=True,
    )  # fmt: skip
    scheme, tokens, total = planned.SCHEMES["lora"], 50, planner.parameters(shape)["total"]
    kept = 12 * 8 + 4 * 16 + 2 * 4  # values per token and layer; one key and value head of 4
    work = 2 * tokens * (14 * 8 + 8 * 16)
    plain = steps.step_gib(shape, scheme, tokens, 10, checkpointed=False) * 2**30
    assert plain == pytest.approx(2 * total + work + 2 * tokens * kept * 3 + 160)
    more = {"modules": 1, "reader": shape, "chunk": 1000}  # logits of 50 tokens: 6 tables
    found = steps.step_gib(shape, scheme, tokens, 10, checkpointed=False, **more) * 2**30
    logits, layer = 6 * 4 * tokens * 100, planner.parameters(shape)["layer"]
    inputs = 2 * tokens * kept * 4
    copied = 2 * 2 * 8 * 100  # the embedding with its trained rows, in the head and in the module's
    beside = 2 * total + 16 * layer + copied
    assert found == pytest.approx(2 * total + logits + inputs + 160 + beside)
    with pytest.raises(ValueError, match="with adapters alone"):
        steps.step_gib(shape, planned.SCHEMES["full"], tokens, checkpointed=False)


def test_a_layer_keeps_what_autograd_saves():
    """Bytes per token and layer from the graph itself: 4 layers less 2, adapters, bfloat16."""
    hidden, inner = 256, 512

    def saved(layers: int) -> int:
        config = AutoConfig.for_model(
            "qwen2", hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=2, vocab_size=64, tie_word_embeddings=True,
        )  # fmt: skip
        plain = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
        lora = profiles.load("real-0.5b").lora
        model = adapters.attach(plain, lora)
        model.enable_input_require_grads()
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        seen: dict[int, torch.Tensor] = {}

        def keep(tensor):
            if tensor.untyped_storage().data_ptr() not in own:
                seen[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        ids = torch.zeros(2, 128, dtype=torch.long)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16):
            model.get_base_model().model(input_ids=ids, use_cache=False)
        return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())

    found = (saved(4) - saved(2)) / 2 / (2 * 128)
    assert found == pytest.approx(2 * (12 * hidden + 4 * inner + 2 * 2 * 64), rel=0.08)


def test_a_head_with_trained_rows_keeps_a_copy_of_the_embedding():
    """What autograd saves that is as large as the table: one per call of the head."""
    config = AutoConfig.for_model(
        "qwen2", hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=500, tie_word_embeddings=True,
    )  # fmt: skip
    table, lora = 2 * 500 * 32, profiles.load("real-0.5b").lora
    for rows, copies in (([], 0), ([7, 9], 2)):
        plain = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
        head = adapters.attach(plain, lora, rows).get_base_model().get_output_embeddings()
        own = {p.untyped_storage().data_ptr() for p in plain.parameters()}
        kept = []

        def keep(tensor, own=own, kept=kept):
            large = tensor.untyped_storage().nbytes() == table
            if large and tensor.untyped_storage().data_ptr() not in own:
                kept.append(tensor)
            return tensor

        states = torch.randn(1, 4, 32, dtype=torch.bfloat16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            head(states), head(states)
        assert len({tensor.untyped_storage().data_ptr() for tensor in kept}) == copies


@pytest.mark.parametrize(
    ("part", "rows", "more"),
    [
        ("full", 16, {}),
        ("lora", 16, {}),
        ("qlora", 16, {}),
        ("sft", 8, {}),
        ("distillation", 2, {"modules": 1, "chunk": 4096}),
    ],
)
def test_the_planner_has_the_memory_of_proxy_1_5b_within_15_percent(part, rows, more):
    """An H100's, with layers checkpointed; docs/profiles.md has each beside the planner's."""
    lines = (CHECKOUT / "benchmarks/gpu_check_proxy-1.5b.jsonl").read_text().splitlines()
    measured = {name: found for line in lines for name, found in json.loads(line).items()}
    gib = measured[part]["peak_gib"]
    parent, shape = planner.architecture("proxy-1.5b")
    lora = profiles.load("proxy-1.5b").lora
    kind = part if part in planned.SCHEMES else "lora"
    adapter = steps.adapters(shape, lora.r, lora.target_modules) if kind != "full" else 0
    beside = more | ({"reader": parent} if more else {})
    found = steps.step_gib(shape, planned.SCHEMES[kind], rows * 512, adapter, **beside)
    error = gib / found - 1
    assert abs(error) <= 0.15
    line = f"| {rows} x 512 | {gib:.2f} | {found:.2f} | {100 * error:+.1f} |"
    assert line in (CHECKOUT / "docs/profiles.md").read_text(encoding="utf-8")


def test_docs_have_the_seconds_of_two_checks_beside_the_planners():
    """Those of an H200's host, which are not within 15 %: the docs count how many are."""
    lines = (CHECKOUT / "benchmarks/gpu_check_h200.jsonl").read_text().splitlines()
    found = {}
    for line in map(json.loads, lines):
        for name in ("full", "lora", "qlora", "sft", "distillation"):
            if name in line:
                found.setdefault((line["profile"], name), {})[line["run"]] = line[name]
    docs = (CHECKOUT / "docs/profiles.md").read_text(encoding="utf-8")
    for (profile, _), runs in found.items():
        told = [
            f"{part['step_s']:.3f} ({100 * part['step_error']:+.0f} %)" for part in runs.values()
        ]
        line = " | ".join([f"{runs[1]['planned_step_s']:.3f}", *told])
        assert f"| `{profile}`, " in docs and f" | {line} |" in docs
    errors = [part["step_error"] for runs in found.values() for part in runs.values()]
    assert sum(abs(error) <= 0.15 for error in errors) == 3 and len(errors) == 19
    assert "held in three of these nineteen" in " ".join(docs.split())
    assert f"up to {1 + max(errors):.1f} times as long" in " ".join(planner.ASSUMPTIONS)
    lines = (CHECKOUT / "benchmarks/gpu_check_proxy-1.5b.jsonl").read_text().splitlines()
    for name, part in (item for line in map(json.loads, lines) for item in line.items()):
        for run in found.get(("proxy-1.5b", name), {}).values():  # "the same to 0.01 GiB"
            assert run["peak_gib"] == pytest.approx(part["peak_gib"], abs=0.01)
    apart = [runs[2]["step_s"] / runs[1]["step_s"] - 1 for runs in found.values() if 2 in runs]
    assert f"differs by up to {max(map(abs, apart)):.0%}".replace("%", " %") in " ".join(
        docs.split()
    )


@pytest.mark.parametrize(
    ("more", "seconds", "gib"),
    [
        ({"passes": 2, "tokens": 6828}, 0.523, 16.6),  # fine-tuning of 04, docs/profiles.md
        ({"passes": 4, "tokens": 11788, "modules": 1, "chunk": 2048}, 1.372, 25.2),  # 03
    ],
)
def test_the_planner_is_within_15_percent_of_what_an_h100_took(more, seconds, gib):
    parent, shape = planner.architecture("real-0.5b")
    scheme, lora = planned.SCHEMES["lora"], profiles.load("real-0.5b").lora
    adapter = steps.adapters(shape, lora.r, lora.target_modules)
    passes, tokens, modules = more["passes"], more["tokens"], more.get("modules", 0)
    beside = {"modules": modules} | ({"reader": parent} if modules else {})
    step = steps.step_seconds(
        shape, scheme, 989e12, tokens, 213, 0.4, passes=passes, checkpointed=False, **beside
    )
    assert step == pytest.approx(seconds, rel=0.15)
    chunk, most = more.get("chunk", 0), 16 * 512
    room = steps.step_gib(shape, scheme, most, adapter, checkpointed=False, chunk=chunk, **beside)
    assert room == pytest.approx(gib, rel=0.15)
