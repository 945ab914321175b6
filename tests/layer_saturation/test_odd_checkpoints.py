"""Checkpoints that are not as they should be: read, or one sentence."""

import json

import pytest
import torch
from parents import logits, parent_of, planned
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from katlab import UserError
from katlab.layer_saturation import verify, writer
from katlab.layer_saturation.safetensors_layout import INDEX, stored


def in_two(folder, **second) -> None:
    """The parent's tensors in two files that both have the embedding."""
    whole = load_file(folder / "model.safetensors")
    embedding = {"model.embed_tokens.weight": whole.pop("model.embed_tokens.weight")}
    save_file(whole | embedding, folder / "a.safetensors", {"format": "pt"})
    save_file(second or embedding, folder / "b.safetensors", {"format": "pt"})
    where = dict.fromkeys(whole, "a.safetensors") | dict.fromkeys(embedding, "b.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))


@pytest.mark.parametrize("shard_bytes", [2_000, 10**9])
def test_a_tensor_in_two_files_is_written_once(shard_bytes, tmp_path):
    model = parent_of("qwen2", tmp_path / "parent")
    in_two(tmp_path / "parent")
    made, child = planned("zero"), tmp_path / "child"
    writer.write(tmp_path / "parent", child, made, shard_bytes=shard_bytes)
    assert verify.files(tmp_path / "parent", child, made) == len(stored(child))
    assert sum(len(load_file(file)) for file in child.glob("*.safetensors")) == len(stored(child))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(child)), logits(model))


@pytest.mark.parametrize("other", [torch.zeros(64, 16), torch.zeros(64, 16).half(), torch.zeros(3)])
def test_two_tensors_of_one_name_are_refused(other, tmp_path):
    parent_of("qwen2", tmp_path / "parent")
    in_two(tmp_path / "parent", **{"model.embed_tokens.weight": other})
    with pytest.raises(UserError, match=r"embed_tokens.weight lies in a.safetensors and otherwise"):
        writer.write(tmp_path / "parent", tmp_path / "child", planned())
    assert not list(tmp_path.glob("child*"))
