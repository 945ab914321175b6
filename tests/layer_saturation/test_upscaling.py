"""Upscaling in memory and on disk: the same child, exact at zero, whole or not there."""

import copy
import errno
import json
import os
import resource
from contextlib import ExitStack

import decoder
import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from katlab import UserError, cli
from katlab.layer_saturation import (
    architectures,
    command,
    damage,
    mergekit,
    probe,
    safetensors_bytes,
    safetensors_layout,
    verify,
    writer,
)
from katlab.layer_saturation import child as children
from katlab.layer_saturation.plan import STARTS, LayerPlan, plan

CHOSEN = plan(4, choice="list", chosen=[1, 2], start="copy")


def tiny(dtype=torch.float32, tied: bool = True, window: bool = False):
    sliding = dict(use_sliding_window=True, sliding_window=5, max_window_layers=2)
    ends = dict(pad_token_id=0, bos_token_id=None, eos_token_id=1)
    window_layers = sliding if window else dict(max_window_layers=4)
    shape = dict(num_hidden_layers=4, tie_word_embeddings=tied, **ends, **window_layers)
    return decoder.tiny(**shape).to(dtype)


def text(sequences: int = 2, length: int = 12) -> list[dict]:
    ids = torch.randint(1, 61, (sequences, length), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]


@pytest.fixture
def parent(tmp_path):
    """A parent of several shards with files that travel, and one that does not."""
    folder = tmp_path / "parent"
    tiny(torch.bfloat16, tied=False).save_pretrained(folder, max_shard_size="20KB")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "training.pt").write_bytes(b"x")
    return folder


@pytest.fixture(params=["apply_in_memory", "upscaled"])
def deeper(request):
    """deeper(model, plan): a child of its own, or the parent run as its child."""
    if request.param == "apply_in_memory":
        yield children.apply_in_memory
        return
    with ExitStack() as stack:

        def run_as(model, plan):
            return stack.enter_context(children.upscaled(copy.deepcopy(model), plan))

        yield run_as


@torch.no_grad()
def test_zero_starts_as_its_parent_bit_by_bit(deeper):
    model, ids = tiny(), text()[0]["input_ids"]
    child = deeper(model, plan(4, choice="list", chosen=[0, 3], start="zero"))
    own = model(ids, use_cache=False).logits
    assert torch.equal(child(ids, use_cache=False).logits, own)


@torch.no_grad()
def test_a_copy_runs_its_layer_twice(deeper):
    model, ids = tiny(), text()[0]["input_ids"]
    child = deeper(model, plan(4, choice="list", chosen=[1], start="copy"))
    layer = model.model.layers[1]
    own = layer.forward
    layer.forward = lambda h, *a, **k: own(own(h, *a, **k), *a, **k)
    torch.testing.assert_close(child(ids, use_cache=False).logits,
                               model(ids, use_cache=False).logits)  # fmt: skip


@torch.no_grad()
def test_half_step_is_closer_than_a_copy(deeper):
    """Two half Euler steps stay near one whole: second order in the layer's update."""
    model, batches = tiny(), text()
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.mul_(6)
    logits = model(batches[0]["input_ids"], use_cache=False).logits

    def distance(start):
        child = deeper(model, plan(4, choice="list", chosen=[1], start=start))
        return (child(batches[0]["input_ids"], use_cache=False).logits - logits).norm()

    assert distance("half-step") < 0.5 * distance("copy")


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("dispatched", [False, True])
@torch.no_grad()
def test_the_parent_run_as_its_child_says_what_the_child_says(start, dispatched):
    """Sliding windows in two layers, accelerate's hooks on all of them; then the parent again."""
    model, ids = tiny(window=True), text(length=30)[0]["input_ids"]
    made = plan(4, choice="list", chosen=[1, 1, 2], order="stacked", start=start, alpha=0.3)
    own, expected = (
        m(ids, use_cache=False).logits for m in (model, children.apply_in_memory(model, made))
    )
    if dispatched:
        dispatch_model(model, {"": "cpu"}, force_hooks=True)
    layers, config = model.model.layers, model.model.config
    with pytest.raises(KeyboardInterrupt), children.upscaled(model, made) as child:
        torch.testing.assert_close(child(ids, use_cache=False).logits, expected)
        raise KeyboardInterrupt
    assert model.model.layers is layers and model.model.config is config
    assert torch.equal(model(ids, use_cache=False).logits, own)


def test_a_child_of_its_own_is_tied_trainable_and_generates_with_a_cache():
    model = tiny()
    child = children.apply_in_memory(model, CHOSEN)
    weight = child.model.layers[1].mlp.up_proj.weight
    assert weight.data_ptr() != model.model.layers[1].mlp.up_proj.weight.data_ptr()
    assert child.lm_head.weight is child.model.embed_tokens.weight, "tied as the parent"
    ids = text()[0]["input_ids"]
    cached, plain = (
        child.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=None, use_cache=cache)
        for cache in (True, False)
    )
    assert torch.equal(cached, plain)


def test_a_model_on_two_devices_is_told_what_to_set():
    model = tiny()
    model.model.layers[3].to("meta")
    with pytest.raises(UserError, match=r"layer_saturation.recovery_steps = 0"):
        children.apply_in_memory(model, CHOSEN)


def test_prediction_is_the_childs_measured_loss():
    model, batches = tiny(), text()
    predicted = children.predict(model, CHOSEN, batches)
    child = children.apply_in_memory(model, CHOSEN)
    assert predicted["child_loss"] == pytest.approx(children.mean_loss(child, batches), abs=1e-6)
    assert predicted["loss_change"] == predicted["child_loss"] - predicted["parent_loss"]


@torch.no_grad()
def test_children_are_compared_by_loss_divergence_and_first_choice(monkeypatch):
    monkeypatch.setattr(damage, "CHUNK", 3)
    model, (batch,) = tiny(), text()
    batch["labels"] = batch["input_ids"].masked_fill(batch["input_ids"] > 50, -100)
    deeper = [
        children.apply_in_memory(model, plan(4, choice="list", chosen=[1, 2], start=start))
        for start in ("copy", "zero")
    ]
    reference = children.Reference(model, [batch])
    copied, zero = (reference.against(child) for child in deeper)
    log_p, log_q = (
        m(batch["input_ids"]).logits[:, :-1].log_softmax(-1) for m in (model, deeper[0])
    )
    counted = (batch["labels"] != -100)[:, 1:]
    counted[:, :3] = False  # the first four tokens stand apart
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)[counted].mean()
    agreement = (log_p.argmax(-1) == log_q.argmax(-1))[counted].double().mean()
    change = children.predict(model, CHOSEN, [batch])["loss_change"]
    assert copied == pytest.approx(
        {"loss_change": change, "kl": float(kl), "top1_agreement": float(agreement)}, abs=1e-6
    )
    assert 0 < copied["kl"] and zero == {"loss_change": 0.0, "kl": 0.0, "top1_agreement": 1.0}


@pytest.mark.parametrize("start", STARTS)
def test_written_child_equals_the_one_in_memory(parent, tmp_path, start):
    made = plan(4, choice="list", chosen=[1, 1, 3], start=start, alpha=0.3)
    record = writer.write(parent, tmp_path / "child", made, shard_bytes=30_000)
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "child", dtype="auto").state_dict()
    loaded = AutoModelForCausalLM.from_pretrained(parent, dtype="auto")
    expected = children.apply_in_memory(loaded, made).state_dict()
    assert written.keys() == expected.keys()
    for name, tensor in expected.items():
        assert written[name].dtype == torch.bfloat16
        assert torch.equal(written[name], tensor.bfloat16()), name
    assert record["parameters"] == sum(t.numel() for t in expected.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("factor", [0.5, 0.3, 1 / 3])
def test_scaling_bytes_rounds_as_torch_does(dtype, factor):
    torch.manual_seed(0)
    values = (torch.randn(5000) * torch.logspace(-30, 30, 5000)).to(dtype)
    values[:3] = torch.tensor([0.0, -0.0, float("inf")])
    name = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}[dtype]
    raw = np.frombuffer(values.view(torch.uint8).numpy().tobytes(), safetensors_layout.NUMPY[name])
    found = torch.frombuffer(bytearray(safetensors_bytes.scaled(raw, factor, name)), dtype=dtype)
    assert torch.equal(found, values * factor)


def test_what_lies_beside_the_weights(parent, tmp_path):
    child = tmp_path / "child"
    made = plan(4, choice="list", chosen=[1, 2], start="half-step")
    writer.write(parent, child, made, shard_bytes=30_000)
    config = json.loads((child / "config.json").read_text())
    assert (config["num_hidden_layers"], config["max_window_layers"]) == (6, 6)
    assert len(config["layer_types"]) == 6
    assert {"tokenizer.json", "generation_config.json"} <= {p.name for p in child.iterdir()}
    assert not (child / "training.pt").exists() and not (child / "job.json").exists()
    record = json.loads((child / "upscale.json").read_text())
    assert LayerPlan.load(child / "upscale.json") == made
    digests = record["source"]["sha256"]
    shards = sorted(p.name for p in parent.glob("*.safetensors"))
    assert sorted(digests) == ["config.json", *shards] and len(shards) > 1
    import hashlib

    for name, digest in digests.items():
        assert hashlib.sha256((parent / name).read_bytes()).hexdigest() == digest
    index = json.loads((child / safetensors_layout.INDEX).read_text())
    assert index["metadata"]["total_size"] == record["bytes"]
    for name, file in index["weight_map"].items():
        assert name in load_file(child / file)


def test_the_mergekit_recipe_lists_every_layer(parent, tmp_path):
    import yaml

    made = plan(4, choice="list", chosen=[1, 2], start="zero")
    config, names = {"dtype": "bfloat16", "model_type": "qwen2"}, safetensors_layout.stored(parent)
    recipe = yaml.safe_load(mergekit.recipe(parent, made, config, names))
    assert recipe["merge_method"] == "passthrough" and recipe["dtype"] == "bfloat16"
    layers = []
    for part in recipe["slices"]:
        source = part["sources"][0]
        first, last = source["layer_range"]
        scale = source.get("parameters", {}).get("scale", [{"value": 1.0}])
        layers += [(i, scale[0]["value"]) for i in range(first, last)]
        assert scale[-1] == {"value": 1.0}
    assert layers == list(zip(made.source, made.scale, strict=True))


def test_interrupted_it_continues_with_the_finished_shards(parent, tmp_path, monkeypatch):
    child, partial = tmp_path / "child", tmp_path / "child.partial"
    real, calls = writer._write_shard, []

    def stops(source, part, name, *rest):
        calls.append(name)
        if len(calls) > 2:
            raise KeyboardInterrupt
        real(source, part, name, *rest)

    monkeypatch.setattr(writer, "_write_shard", stops)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        writer.write(parent, child, CHOSEN, shard_bytes=30_000)
    assert not child.exists() and not (partial / "config.json").exists()
    kept = {p.name: p.stat().st_mtime_ns for p in partial.glob("*.safetensors")}
    assert len(kept) == 2
    monkeypatch.setattr(writer, "_write_shard", real)
    writer.write(parent, child, CHOSEN, shard_bytes=30_000)
    assert not partial.exists()
    assert {name: (child / name).stat().st_mtime_ns for name in kept} == kept
    assert verify.files(parent, child, CHOSEN) == 6 * 12 + 3


def test_another_job_does_not_continue_it(parent, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_write_shard", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        writer.write(parent, tmp_path / "child", CHOSEN)
    with pytest.raises(UserError, match="another unfinished child"):
        writer.write(parent, tmp_path / "child", plan(4, choice="evenly"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("seam", [(safetensors_bytes, "copy"), (writer, "_carry")])
def test_a_full_disk_gives_one_sentence_and_no_checkpoint(
    parent, tmp_path, monkeypatch, code, seam
):
    def full(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(*seam, full)
    with pytest.raises(UserError, match="disk is full .* run the same command again"):
        writer.write(parent, tmp_path / "child", CHOSEN)
    assert not (tmp_path / "child").exists()
    assert not list((tmp_path / "child.partial").glob("*.safetensors.part"))
    monkeypatch.undo()
    writer.write(parent, tmp_path / "child", CHOSEN)


@pytest.mark.parametrize("start", ["copy", "half-step"])
@pytest.mark.parametrize("limit", [300, 8_000, 60_000])
def test_the_kernel_itself_refuses_to_write_on(parent, tmp_path, monkeypatch, start, limit):
    """Files may grow to `limit` bytes only: in the marker, in a small and in a large shard."""
    monkeypatch.setattr(probe, "prove", lambda *_: None)  # would write a small copy first
    made = plan(4, choice="list", chosen=[1, 2], start=start)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(UserError, match="disk is full .* run the same command again"):
            writer.write(parent, tmp_path / "child", made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "child").exists()
    writer.write(parent, tmp_path / "child", made)
    verify.files(parent, tmp_path / "child", made)


@pytest.mark.parametrize("code", safetensors_bytes.UNSUPPORTED)
def test_another_file_system_gets_the_same_bytes(tmp_path, monkeypatch, code):
    def elsewhere(*arguments):
        raise OSError(code, os.strerror(code))

    data = os.urandom(10_000)
    (tmp_path / "from").write_bytes(data)
    monkeypatch.setattr(os, "copy_file_range", elsewhere)
    with (tmp_path / "from").open("rb") as source, (tmp_path / "to").open("wb") as target:
        safetensors_bytes.copy(source.fileno(), target.fileno(), 100, 9_000)
    assert (tmp_path / "to").read_bytes() == data[100:9_100]


def test_a_write_that_takes_a_part_is_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))
    with (tmp_path / "to").open("wb") as target:
        safetensors_bytes.append(target.fileno(), bytes(range(100)))
    assert (tmp_path / "to").read_bytes() == bytes(range(100))


def test_a_folder_that_cannot_be_made_is_one_sentence(parent, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written .Not a directory.; give another"):
        writer.write(parent, tmp_path / "file" / "child", CHOSEN)


def test_a_disk_too_small_is_told_before_a_byte_is_written(parent, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="GB free; free some"):
        writer.write(parent, tmp_path / "child", CHOSEN)
    assert not (tmp_path / "child").exists() and not (tmp_path / "child.partial").exists()


def test_damaged_shards_are_named(parent, tmp_path):
    shard = sorted(parent.glob("*.safetensors"))[1]
    whole = shard.read_bytes()
    for broken, told in ((whole[:-10], "cut short"), (whole[:6], "damaged"), (b"", "damaged")):
        shard.write_bytes(broken)
        with pytest.raises(UserError, match=f"{shard.name} is {told}"):
            writer.write(parent, tmp_path / "child", CHOSEN)
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} cannot be read"):
        writer.write(parent, tmp_path / "child", CHOSEN)
    assert not (tmp_path / "child").exists()


def test_a_read_error_midway_names_the_file(parent, tmp_path, monkeypatch):
    def broken(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(safetensors_bytes, "copy", broken)
    with pytest.raises(UserError, match=r"model-\d+-of-\d+.safetensors failed"):
        writer.write(parent, tmp_path / "child", CHOSEN)


def test_other_mistakes(parent, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists"):
        writer.write(parent, tmp_path / "there", CHOSEN)
    with pytest.raises(UserError, match="no safetensors|No safetensors|config.json"):
        writer.write(tmp_path / "there", tmp_path / "child", CHOSEN)
    with pytest.raises(UserError, match="plan again"):
        writer.write(parent, tmp_path / "child", plan(8, choice="evenly"))


def test_verify_finds_what_is_wrong_in_the_files(parent, tmp_path):
    child = tmp_path / "child"
    writer.write(parent, child, CHOSEN)
    wrong, name = (
        plan(4, choice="list", chosen=[1], start="zero"),
        "model.layers.2.mlp.up_proj.weight",
    )
    with pytest.raises(UserError, match="config.json is not what the plan says"):
        verify.files(parent, child, wrong)
    (shard,) = child.glob("*.safetensors")
    whole = load_file(shard)
    for change in (
        {name: whole[name] + 1},
        {name: whole[name].float()},
        {f"{name}.more": whole[name].clone()},
    ):
        save_file(whole | change, shard, {"format": "pt"})
        with pytest.raises(UserError, match=r"layers.2.mlp.up_proj.weight.* what the plan says"):
            verify.files(parent, child, CHOSEN)
    save_file({k: v for k, v in whole.items() if k != name}, shard, {"format": "pt"})
    with pytest.raises(UserError, match=r"layers.2.mlp.up_proj.weight is not what the plan says"):
        verify.files(parent, child, CHOSEN)


def test_verify_finds_a_child_that_says_otherwise():
    model, batches = tiny(), text()
    expected = verify.Expected(model, plan(4, choice="list", chosen=[1], start="zero"), batches)
    child = children.apply_in_memory(model, expected.plan)
    checks = expected.met_by(child)
    assert checks["kl"] == checks["loss_change"] == 0.0
    assert checks["parent_loss"] == checks["student_loss"] == children.mean_loss(model, batches)
    norm = child.model.norm.weight
    for factor, told in ((1.0001, "must equal its parent"), (2.0, "loss moved by"),
                         (float("nan"), "loss moved by")):  # fmt: skip
        with torch.no_grad():
            norm.fill_(factor)
        with pytest.raises(UserError, match=told):
            expected.met_by(child)


def test_40b_end_to_end_from_sparse_files(tmp_path):
    """Qwen2.5-32B's real shapes and 17 shards as sparse files: names, shapes, index, 40.57B."""
    source = sparse_qwen32b(tmp_path / "Qwen2.5-32B")
    made = plan(64, choice="list", chosen=range(40, 56))
    shards = safetensors_layout.layout(source, made, "qwen2")
    pieces = {p.name: p for shard in shards for p in shard}
    assert len(shards) == 17 and sum(len(s) for s in shards) == len(pieces) == 80 * 12 + 3
    assert sum(int(np.prod(p.shape)) for p in pieces.values()) == 40_565_560_320
    assert sum(p.size for p in pieces.values()) == 81_131_120_640
    config = architectures.child_config(safetensors_layout.read_config(source), made)
    from katlab.scaling_plan import planner

    expected = planner.instantiate(config).state_dict()
    assert {n: p.shape for n, p in pieces.items()} == {
        n: tuple(t.shape) for n, t in expected.items()
    }
    names = safetensors_layout.shard_names(len(shards))
    assert names[0] == "model-00001-of-00017.safetensors"
    header = json.loads(safetensors_layout.header_bytes(shards[3])[8:])
    assert all(header[p.name]["data_offsets"][1] - header[p.name]["data_offsets"][0] == p.size
               for p in shards[3])  # fmt: skip


def sparse_qwen32b(folder):
    """Headers and empty bodies of Qwen2.5-32B in bfloat16: 65.5 GB that take no room."""
    hidden, inner, kv, vocab = 5120, 27648, 1024, 152064
    shapes = {"model.embed_tokens.weight": [vocab, hidden]}
    for i in range(64):
        base = f"model.layers.{i}"
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            shapes[f"{base}.self_attn.{name}_proj.weight"] = [rows, hidden]
            shapes[f"{base}.self_attn.{name}_proj.bias"] = [rows]
        shapes[f"{base}.self_attn.o_proj.weight"] = [hidden, hidden]
        shapes[f"{base}.mlp.gate_proj.weight"] = [inner, hidden]
        shapes[f"{base}.mlp.up_proj.weight"] = [inner, hidden]
        shapes[f"{base}.mlp.down_proj.weight"] = [hidden, inner]
        shapes[f"{base}.input_layernorm.weight"] = [hidden]
        shapes[f"{base}.post_attention_layernorm.weight"] = [hidden]
    shapes |= {"model.norm.weight": [hidden], "lm_head.weight": [vocab, hidden]}
    shards, filled = [{}], 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        if filled + size > 4_000_000_000:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += size
    folder.mkdir()
    where = {}
    for number, shard in enumerate(shards, 1):
        file, header, at = f"model-{number:05d}-of-{len(shards):05d}.safetensors", {}, 0
        for name, shape in shard.items():
            size = 2 * int(np.prod(shape))
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            where[name], at = file, at + size
        encoded = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(len(encoded).to_bytes(8, "little") + encoded)
            out.truncate(8 + len(encoded) + at)
    (folder / safetensors_layout.INDEX).write_text(
        json.dumps({"metadata": {"total_size": 65_527_752_704}, "weight_map": where})
    )
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": 64, "num_attention_heads": 40,
        "num_key_value_heads": 8, "vocab_size": vocab, "tie_word_embeddings": False,
        "max_position_embeddings": 131072, "max_window_layers": 64, "rms_norm_eps": 1e-5,
        "torch_dtype": "bfloat16", "use_sliding_window": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_command_line_plans_and_writes(parent, tmp_path, capsys):
    plan_file, child = tmp_path / "plan.json", tmp_path / "child"
    assert cli.main(["upscale", "plan", str(parent), "--layers", "1,2", "--start", "zero",
                     "--out", str(plan_file)]) == 0  # fmt: skip
    told = capsys.readouterr().out
    assert "4 -> 6" in told and "parameters" in told and "not predicted" in told
    assert cli.main(["upscale", "apply", str(parent), str(child), "--plan", str(plan_file)]) == 0
    assert "6 layers" in capsys.readouterr().out
    assert cli.main(["upscale", "apply", str(parent), str(child), "--layers", "1"]) == 2
    assert "exists" in capsys.readouterr().err
    assert cli.main(["upscale", "plan", str(parent)]) == 2
    assert "--text" in capsys.readouterr().err


def test_the_command_line_verifies(tokenizer, tmp_path, capsys):
    torch.manual_seed(0)
    config = tiny().config
    config.vocab_size, config.eos_token_id = len(tokenizer), tokenizer.eos_token_id
    source, child, held_out = (tmp_path / name for name in ("source", "child", "held_out.txt"))
    AutoModelForCausalLM.from_config(config).save_pretrained(source)
    tokenizer.save_pretrained(source)
    held_out.write_text("The heat is at 7. Set it to 7+3. " * 20)
    told = ["upscale", "verify", str(source), str(child), "--text", str(held_out), "--tokens", "64"]
    assert cli.main(told) == 2
    assert "katlab upscale apply" in capsys.readouterr().err
    cli.main(["upscale", "apply", str(source), str(child), "--layers", "1,2", "--start", "zero"])
    capsys.readouterr()
    assert cli.main(told) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["layers"] == "4 -> 6" and shown["tensors"] == str(6 * 12 + 2)
    assert float(shown["loss_change"]) == float(shown["kl"]) == 0.0
    assert cli.main(told[:4]) == 0
    assert "kl" not in capsys.readouterr().out, "without a text the files alone are compared"
    (shard,) = child.glob("*.safetensors")
    weights = load_file(shard)
    weights["model.layers.2.mlp.up_proj.weight"] += 1
    save_file(weights, shard, {"format": "pt"})
    assert cli.main(told) == 2
    assert "model.layers.2.mlp.up_proj.weight" in capsys.readouterr().err


def test_lists_of_layers_are_read():
    assert command.parse_layers("8,11-13") == [8, 11, 12, 13]
    with pytest.raises(UserError, match="8,11-14"):
        command.parse_layers("a-b")
