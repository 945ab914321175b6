"""Checkpoints, indexes, plans and options that are not as they should be: read, or one sentence."""

import json

import pytest
import torch
from parents import logits, parent_of, planned, reconfigure
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from katlab import UserError, cli
from katlab.layer_saturation import verify, writer
from katlab.layer_saturation.plan import LayerPlan
from katlab.layer_saturation.safetensors_layout import INDEX, read_config, stored


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


INDEXES = [  # the text of an index
    "{", "[]", "null", '"x"', "{}", '{"metadata": {}}', '{"weight_map": null}',
    '{"weight_map": ["a"]}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": null}}',
    '{"weight_map": {"a": "../a.safetensors"}}', '{"weight_map": {"a": "a\\u0000"}}',
    '{"weight_map": {"a": ""}}', "[" * 100_000, "\ud800".encode("utf-16", "surrogatepass"),
]  # fmt: skip


@pytest.mark.parametrize("index", INDEXES, ids=range(len(INDEXES)))
def test_an_odd_index_is_one_sentence(index, tmp_path):
    parent_of("qwen2", tmp_path)
    (tmp_path / INDEX).write_bytes(index if isinstance(index, bytes) else index.encode())
    with pytest.raises(UserError, match=f"{INDEX} is no index of safetensors files"):
        stored(tmp_path)


HEADERS = ["[]", "{}", '{"a": 1}', '{"a": {"dtype": "F32", "data_offsets": [0, 4]}}',
           '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
           '{"a": {"dtype": 3, "shape": [1], "data_offsets": [0, 4]}}']  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_an_odd_header_is_one_sentence(header, tmp_path):
    encoded = header.encode()
    data = len(encoded).to_bytes(8, "little") + encoded + bytes(4)
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="model.safetensors is damaged; fetch it again"):
        stored(tmp_path)


ODD = ["", "[]", "3", "null", '{"num_hidden_layers": 4', "[" * 100_000]  # config.json


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_an_odd_configuration_is_one_sentence(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        read_config(tmp_path)


OPTIONS = [  # of apply, after source, target and --layers 1
    (["--shard-gb", "nan"], "--shard-gb takes a number, not 'nan'."),
    (["--shard-gb", "inf"], "--shard-gb takes a number, not 'inf'."),
    (["--shard-gb", "0"], "--shard-gb 0.0 is no size"),
    (["--shard-gb", "-2"], "--shard-gb -2.0 is no size"),
    (["--start", "alpha", "--alpha", "nan"], "--alpha takes a number, not 'nan'."),
    (["--start", "alpha", "--alpha", "inf"], "--alpha takes a number, not 'inf'."),
    (["--layers", "3-1"], "is no list of layers"),
    (["--layers", "1-99999999999"], "is no list of layers"),
    (["--layers", "1,,x"], "is no list of layers"),
    (["--layers", "7"], "from 0 to 5"),
    (["--layers", "", "--choice", "evenly", "--add", "-1"], "Cannot add -1 layers"),
    (["--plan", "."], "is no layer plan"),
]


@pytest.mark.parametrize(("options", "told"), OPTIONS)
def test_an_odd_option_is_one_sentence(options, told, tmp_path, capsys):
    parent_of("qwen2", tmp_path / "parent")
    capsys.readouterr()
    command = ["upscale", "apply", str(tmp_path / "parent"), str(tmp_path / "child")]
    assert cli.main([*command, "--layers", "1", *options]) == 2
    said = capsys.readouterr().err.strip()
    assert told in said and "\n" not in said
    assert not list(tmp_path.glob("child*"))


PLANS = [  # changes to a plan of 6 layers, of which 1, 4 and 5 are doubled
    {"source": [0, 1, 1, 2, 3, 4, 4, 5, 9]},
    {"source": [1, 0, 1, 2, 3, 4, 4, 5, 5]},
    {"is_new": [True] * 9},
    {"parent_layers": 7},
    {"scale": [1.0] * 8},
    {"scale": [float("nan")] * 9},
]


@pytest.mark.parametrize("changed", PLANS)
def test_a_plan_that_is_none_is_one_sentence(changed, tmp_path):
    planned().save(tmp_path / "plan.json")
    written = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps(written | changed))
    with pytest.raises(UserError, match="is no layer plan|does not keep every layer"):
        LayerPlan.load(tmp_path / "plan.json")


@pytest.mark.parametrize("out", [".", "nowhere/plan.json"])
def test_a_plan_needs_a_file(out, tmp_path, capsys):
    parent_of("qwen2", tmp_path / "parent")
    capsys.readouterr()
    command = ["upscale", "plan", str(tmp_path / "parent"), "--layers", "1", "--out"]
    assert cli.main([*command, str(tmp_path / out)]) == 2
    assert "name one, as --out plan.json" in capsys.readouterr().err


def test_planning_counts_other_architectures_by_their_files(tmp_path, capsys):
    model = parent_of("mixtral", tmp_path / "parent", num_local_experts=4)
    out = ["--out", str(tmp_path / "plan.json")]
    assert cli.main(["upscale", "plan", str(tmp_path / "parent"), "--layers", "1", *out]) == 0
    parameters = sum(weight.numel() for weight in model.parameters())
    child = parameters + sum(weight.numel() for weight in model.model.layers[1].parameters())
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("parameters")]
    assert line.split()[1:] == [f"{parameters / 1e9:.4g}", "->", f"{child / 1e9:.4g}", "B"]


@pytest.mark.parametrize("missing", ["tie_word_embeddings", "num_key_value_heads"])
def test_planning_knows_the_usual_values(missing, tmp_path, capsys):
    parent_of("qwen2", tmp_path)
    reconfigure(tmp_path, [missing])
    assert cli.main(["upscale", "plan", str(tmp_path), "--layers", "1",
                     "--out", str(tmp_path / "plan.json")]) == 0  # fmt: skip
    reconfigure(tmp_path, ["hidden_size"])
    assert cli.main(["upscale", "plan", str(tmp_path), "--layers", "1"]) == 2
    assert "config.json gives no hidden_size" in capsys.readouterr().err
