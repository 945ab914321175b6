"""`katlab export`: what is in the zip and what is not; a student that answers as the run's."""

import contextlib
import io
import json
import os
import platform
import re
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from katlab import UserError, arms, cli, lab, models, template
from katlab.export import bundle, origin, response, student

CLAIMS = [
    {"claim": "Tokens fall", "reported": "-19 %", "measured": "-25 % [-29, -21]", "held": True},
    {"claim": "Wishes | are obeyed", "reported": "–", "measured": "65 %", "held": False},
]
ASK = [{"role": "user", "content": "Compute 13+14."}]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of stage 05 alone: nano's base with the tags stands for the final student."""
    outputs = tmp_path_factory.mktemp("outputs")
    stage = lab.StageRun.create(
        outputs, "r", "05_step_srpo", profile="tiny", overrides={"step_srpo.omega": 0.3}, seed=3
    )
    model, tokenizer = models.load(stage.config.model)
    template.add_tags(tokenizer)
    model.resize_token_embeddings(len(tokenizer))
    models.save(model, tokenizer, stage.checkpoints / "student", stage.config.model)
    stage.conclude({"accuracy": 0.9})
    stage.close("done")
    (stage.dir / "report.html").write_text(f"<p>made in {Path.cwd()}/x</p>")
    claim = {"claim": f"Read {Path.cwd()}/x", "reported": "–", "measured": "1", "held": None}
    stage.write("verdict.json", [*CLAIMS, claim])
    (stage.dir / "kernel.log").write_text("log")
    (stage.dir / "notebook.ipynb").write_text("{}")
    (outputs / "r" / "index.html").write_text('<a href="05_step_srpo/report.html">05</a>')
    return outputs / "r"


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "student"
    return bundle.write(run, folder, model_only=True)


@pytest.mark.parametrize("mode", ["auto", "on", "off"])
def test_the_exported_model_replies_as_the_runs_student(run, exported, mode):
    """Greedy, through the exported chat template; ours is prefilled as stage 06 does."""
    model, tokenizer = models.load_from(student.checkpoint(run), lab.load_profile("tiny").model)
    words = lab.load_profile("tiny").prompts
    ours = template.prompt(tokenizer, ASK) + arms.forced(words, mode)
    theirs = AutoTokenizer.from_pretrained(exported).apply_chat_template(
        ASK, mode=mode, tokenize=False, add_generation_prompt=True
    )
    assert theirs == ours
    inputs = tokenizer(ours, add_special_tokens=False, return_tensors="pt")
    said = {"max_new_tokens": 40, "do_sample": False}
    copy = AutoModelForCausalLM.from_pretrained(exported)
    assert copy.generate(**inputs, **said).tolist() == model.generate(**inputs, **said).tolist()
    assert copy.config.use_cache


def test_the_snippet_of_the_card_runs(exported, monkeypatch):
    monkeypatch.chdir(exported)
    card = Path("README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.S)[1]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    assert [line.split()[0] for line in out.getvalue().splitlines()] == ["auto", "on", "off"]
    assert "'role': 'assistant'" in out.getvalue()


def test_the_tokenizer_says_how_a_reply_is_split(exported):
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert tokenizer.response_template == response.SERVED
    assert json.loads((exported / "response_parts.json").read_text()) == response.PARTS
    reply = template.judged("on", "hard") + template.body("on", "27", "13+14=27") + template.END
    prompt = template.prompt(tokenizer, ASK)
    ids = tokenizer(reply, add_special_tokens=False)["input_ids"]
    assert tokenizer.parse_response(ids, prefix=prompt)["content"] == "27"
    parser = tokenizer.get_response_parser(prefix=prompt)
    for token in ids:
        parser.feed(tokenizer.decode([token]))
    message, _ = parser.finalize()
    assert message["content"] == "27" and message["thinking"].endswith("13+14=27")


def test_a_mode_is_forced_in_the_words_of_stage_06(exported):
    tokenizer = AutoTokenizer.from_pretrained(exported)
    for mode, words in (("on", "work it out, think on."), ("off", "answer directly, think off.")):
        assert template.prompt(tokenizer, ASK, mode=mode).endswith(
            f"assistant\n<judge>\n{words}\n</judge>\n\n<think_{mode}>\n"
        )
    assert template.prompt(tokenizer, ASK).endswith("assistant\n<judge>\n")


def test_the_card_says_what_held_and_where_it_comes_from(exported):
    card = ModelCard.load(exported / "README.md")
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert card.data.base_model is None  # trained here, so there is none on the Hub
    assert "1 of 2 claims held" in card.text
    assert "| 05 | Read x | – | 1 | not applicable |" in card.text
    assert "| 05 | Tokens fall | -19 % | -25 % [-29, -21] | yes |" in card.text
    assert "| 05 | Wishes \\| are obeyed | – | 65 % | **no** |" in card.text
    for said in ("| profile | tiny |", "| seed | 3 |", "`step_srpo.omega=0.3`", "transformers 5."):
        assert said in card.text
    assert "data_samples/nano/base" in card.text and "random weights" in card.text


def test_the_licence_of_a_base_is_read_and_never_invented(tmp_path):
    assert origin.base("data_samples/nano/base").license == "apache-2.0"
    (tmp_path / "README.md").write_text("---\nlicense: MIT\n---\n# x\n")
    assert origin.base(str(tmp_path)) == (tmp_path.name, "mit", None)
    assert origin.base("nobody/no-such-model") == (
        "nobody/no-such-model",
        "unknown",
        "nobody/no-such-model",
    )
    assert origin.base("package:no_such_package").license == "unknown"


def names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_zip_has_pages_data_and_the_student(run, tmp_path):
    made = names(bundle.write(run, tmp_path / "r.zip"))
    assert {
        "r/index.html", "r/README.md", "r/profile.json", "r/05_step_srpo/report.html",
        "r/05_step_srpo/run.json", "r/05_step_srpo/verdict.json", "r/student/model.safetensors",
        "r/student/chat_template.jinja", "r/student/README.md",
    } <= made  # fmt: skip
    assert not [n for n in made if re.search(r"checkpoints|kernel\.log|\.ipynb|@|/\.", n)]
    assert [path.name for path in tmp_path.iterdir()] == ["r.zip"]  # nothing half made is left


def test_what_names_this_machine_stays_here(run, tmp_path):
    with zipfile.ZipFile(bundle.write(run, tmp_path / "r.zip")) as archive:
        record = json.loads(archive.read("r/05_step_srpo/run.json"))
        assert archive.read("r/05_step_srpo/report.html") == b"<p>made in x</p>"
        settings = json.loads(archive.read("r/profile.json"))
    assert not {"pid", "host", "command"} & set(record) and record["seed"] == 3
    assert settings["settings"]["step_srpo"]["omega"] == 0.3


def test_a_picture_in_base64_is_no_path(run):
    hidden = bundle.places(run)
    home = str(Path.home())
    assert hidden.sub("", f"iVBORw0{home}/AAA") == f"iVBORw0{home}/AAA"
    assert hidden.sub("", f"'{home}/a.txt' file://{home}/b {home}") == "'a.txt' file://b "
    assert hidden.sub("", f"{home}work") == f"{home}work"


def test_the_folders_of_a_sums_files_are_hidden(run, monkeypatch):
    given = ["procedural:0.5 + hub:/srv/maps/mine.toml:0.3 + /data/own/rows.jsonl:0.2"]
    monkeypatch.setattr(bundle, "_given", lambda run: given)
    assert bundle.places(run).sub("", given[0]) == (
        "procedural:0.5 + hub:mine.toml:0.3 + rows.jsonl:0.2"
    )


def test_large_files_are_named_and_left_out(run, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "LARGE", 10)
    (run / "05_step_srpo" / "rollouts.jsonl").write_text('{"a": 1, "b": 2}\n')
    folder = bundle.write(run, tmp_path / "out")
    assert not (folder / "05_step_srpo" / "rollouts.jsonl").exists()
    assert "05_step_srpo/rollouts.jsonl (0 MiB)" in (folder / "README.md").read_text()


def test_mistakes_are_one_sentence(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "there.zip").write_text("mine")
    with pytest.raises(UserError, match="there.zip is there already; remove it or give another"):
        bundle.write(run, tmp_path / "there.zip")
    assert (tmp_path / "there.zip").read_text() == "mine"
    with pytest.raises(UserError, match="There is no run 'nope'"):
        bundle.write(run.with_name("nope"), tmp_path / "nope.zip")
    other = lab.StageRun.create(run.parent, "half", "04_cold_start", profile="tiny")
    other.close("done")
    with pytest.raises(UserError, match="'half' has no finished student of stage 05; run: katlab"):
        bundle.write(run.with_name("half"), tmp_path / "half.zip", model_only=True)
    with pytest.raises(UserError, match="has no pages yet; run: katlab report half"):
        bundle.write(run.with_name("half"), tmp_path / "half.zip")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there.zip"]
    (run.with_name("half") / "index.html").write_text("")
    half = bundle.write(run.with_name("half"), tmp_path / "half")  # pages without a student
    assert "no finished student" in (half / "README.md").read_text()
    assert cli.main(["export", "../x"]) == 2
    assert "is no name for a run" in capsys.readouterr().err


@pytest.mark.slow
def test_the_zip_of_a_whole_run_is_closed_in_itself(smoke, tmp_path):
    """Every link resolves inside it, and no file of text knows this machine."""
    with zipfile.ZipFile(bundle.write(smoke, tmp_path / "smoke.zip")) as archive:
        archive.extractall(tmp_path)
    top = tmp_path / "smoke"
    dead = []
    for page in top.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"#:]+)[#"]', page.read_text()):
            if not (page.parent / link).exists():
                dead.append((page.relative_to(top).as_posix(), link))
    assert dead == []
    ours = [tempfile.gettempdir() + "/", str(Path.home()) + "/", sys.prefix, os.getcwd()]
    place = re.compile(rf"(?<![A-Za-z0-9+/])(?:{'|'.join(map(re.escape, ours))})")
    for path in top.rglob("*"):
        if path.is_file() and path.suffix in bundle.TEXT:
            text = path.read_text()
            assert not place.search(text), (path, place.search(text))
            assert f'"{platform.node()}"' not in text
    assert json.loads((top / "05_step_srpo/verdict.json").read_text())
