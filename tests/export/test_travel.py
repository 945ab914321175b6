"""`katlab pack` and `unpack`: the students of a run rebuilt from adapters, bit by bit."""

import json
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path

import decoder
import pytest
import torch
from safetensors.torch import load_file

from katlab import UserError, adapters, cli, models
from katlab.export import travel
from katlab.lab import StageRun, identity
from katlab.layer_saturation import stage as layer_saturation
from katlab.layer_saturation.plan import plan
from katlab.mtp_distillation import stage as mtp_distillation
from katlab.tasks.nano import build, world

TRAINED = ("03_mtp_distillation", "04_cold_start", "05_step_srpo")


def shaken(model) -> None:
    """Stands for training: every weight that would be trained moves."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)


def make(root: Path, lora: bool = True, last: str = "05") -> Path:
    """A run in bfloat16 of a two-layer parent, whose students are adapters over one another."""
    rows = world.queries(30, seed=0, split="eval")
    tokenizer = build.tokenizer("student", [r["messages"][-1]["content"] for r in rows])
    parent = decoder.tiny(vocab_size=len(tokenizer), tie_word_embeddings=True)
    parent.to(torch.bfloat16).save_pretrained(root / "parent")
    tokenizer.save_pretrained(root / "parent")
    overrides = {"lora.enabled": lora, "lora.r": 4, "model.dtype": "bfloat16"}
    overrides["model.student"] = str(root / "parent")
    stages = {
        name: StageRun.create(root / "outputs", "r", name, profile="tiny", overrides=overrides)
        for name in (travel.FIRST, *TRAINED)
        if name[:2] <= last
    }
    torch.manual_seed(1)
    for name, stage in stages.items():
        config, target = stage.config, stage.dir / travel.STUDENT
        if name == travel.FIRST:
            chosen = plan(2, add=1, choice="list", chosen=[0], start="half-step")
            stage.write("layer_plan.json", asdict(chosen))
            layer_saturation.write_student(root / "parent", target, chosen)
        else:
            if name == TRAINED[0]:
                torch.manual_seed(stage.seed)
                model, tokenizer = mtp_distillation.student(stage)
            else:
                source = stages[travel.SOURCE[name]].dir / travel.STUDENT
                model, tokenizer = models.load_for_training(source, config.model, config.lora)
                model = adapters.attach(model, config.lora)
            shaken(model)
            models.save(model, tokenizer, target, config.model)
        (stage.dir / "rows.jsonl").write_text('{"a": 1}\n')
        (stage.dir / "replies.jsonl").write_text("a cache\n")
        stage.conclude({"rows": 1})
        stage.close("done")
    return root / "outputs" / "r"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def packed(run) -> Path:
    return travel.pack(run, "05_step_srpo", run.parent / "r-05.zip")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / travel.STUDENT / "model.safetensors")


def test_every_student_is_rebuilt_bit_by_bit(run, packed, tmp_path):
    again, differ = travel.unpack(packed, tmp_path)
    assert again == tmp_path / "r" and differ == []
    for name in (travel.FIRST, *TRAINED):
        ours, theirs = weights(run / name), weights(again / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
        assert models.tokenizer(again / name / travel.STUDENT)
    students = [weights(again / name)["model.norm.weight"].shape for name in TRAINED]
    assert len(students) == 3
    one, other = weights(again / TRAINED[1]), weights(again / TRAINED[2])
    assert not torch.equal(one["model.layers.0.self_attn.q_proj.weight"],
                           other["model.layers.0.self_attn.q_proj.weight"])  # fmt: skip


def test_the_file_holds_adapters_and_no_model(run, packed):
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
    assert not [n for n in names if n.endswith("model.safetensors") and "adapter" not in n]
    assert not [n for n in names if n.endswith("replies.jsonl")]
    assert sum(n.endswith("adapter/adapter_model.safetensors") for n in names) == len(TRAINED)
    assert f"{TRAINED[1]}/rows.jsonl" in names and travel.MANIFEST in names


def test_what_the_run_is_travels_and_does_not_replace_what_is_there(run, tmp_path):
    kept = identity.Identity("tiny", 0, {"lora.r": 4}, forked_from="first")
    copy = tmp_path / "there" / "r"
    shutil.copytree(run, copy)
    identity.keep(copy, kept)
    file = travel.pack(copy, "03_mtp_distillation", tmp_path / "r-03.zip")
    again, _ = travel.unpack(file, tmp_path)
    assert identity.read(again) == kept
    own = identity.Identity("tiny", 0, {"lora.r": 4}, forked_from="second")
    identity.keep(again, own)
    travel.unpack(file, tmp_path)
    assert identity.read(again) == own


def test_another_weight_in_the_adapter_is_told(packed, tmp_path):
    manifest_of = tmp_path / "other.zip"
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(manifest_of, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == travel.MANIFEST:
                found = json.loads(content)
                found["students"]["04_cold_start"] = "another"
                content = json.dumps(found)
            new.writestr(name, content)
    assert travel.unpack(manifest_of, tmp_path)[1] == ["04_cold_start"]


def test_what_is_there_already_stays_and_the_rest_is_added(run, packed, tmp_path, monkeypatch):
    early = travel.pack(run, "03_mtp_distillation", tmp_path / "early.zip")
    travel.unpack(early, tmp_path)
    before = (tmp_path / "r" / TRAINED[0] / travel.STUDENT / "model.safetensors").stat()
    travel.unpack(packed, tmp_path)
    after = (tmp_path / "r" / TRAINED[0] / travel.STUDENT / "model.safetensors").stat()
    assert before.st_mtime_ns == after.st_mtime_ns
    shutil.rmtree(tmp_path / "r" / TRAINED[2] / travel.STUDENT)  # a kill while it was rebuilt
    travel.unpack(packed, tmp_path)
    assert weights(tmp_path / "r" / TRAINED[2]).keys() == weights(run / TRAINED[2]).keys()


def test_another_run_of_the_name_is_left_alone(run, packed, tmp_path):
    shutil.copytree(run, tmp_path / "r")
    record = json.loads((tmp_path / "r" / TRAINED[0] / "run.json").read_text())
    (tmp_path / "r" / TRAINED[0] / "run.json").write_text(
        json.dumps(record | {"fingerprint": "other"})
    )
    with pytest.raises(UserError, match="has another 03_mtp_distillation here"):
        travel.unpack(packed, tmp_path)


def test_mistakes_are_one_sentence(run, packed, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is there already"):
        travel.pack(run, "05_step_srpo", packed)
    with pytest.raises(UserError, match="has no stage 06_evaluation"):
        travel.pack(run, "06_evaluation", tmp_path / "x.zip")
    (tmp_path / "no.zip").write_text("nothing")
    with pytest.raises(UserError, match="no file that katlab pack wrote"):
        travel.unpack(tmp_path / "no.zip", tmp_path)
    full = make(tmp_path / "full", lora=False, last="03")
    with pytest.raises(UserError, match="trained in full .* set lora.enabled = true"):
        travel.pack(full, "03_mtp_distillation", tmp_path / "y.zip")
    record = json.loads((full / TRAINED[0] / "run.json").read_text()) | {"state": "failed"}
    (full / TRAINED[0] / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="is failed; finish it"):
        travel.pack(full, "03_mtp_distillation", tmp_path / "y.zip")
    assert not list(tmp_path.glob("*.part"))


def test_the_command(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("katlab.lab.stages.outputs", lambda: run.parent)
    out = tmp_path / "r.zip"
    assert cli.main(["pack", "r", "--stage", "04", "--out", str(out)]) == 0
    assert "MiB" in capsys.readouterr().out
    monkeypatch.setattr("katlab.lab.stages.outputs", lambda: tmp_path / "elsewhere")
    assert cli.main(["unpack", str(out)]) == 0
    assert "katlab run --run r" in capsys.readouterr().out
    assert cli.main(["unpack", str(tmp_path / "none.zip")]) == 2
