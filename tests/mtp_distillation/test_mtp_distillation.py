"""Stage 1 on models of a few thousand parameters: the loss, both arms, resume, two ranks, LoRA."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import decoder
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from katlab import UserError, template
from katlab.lab import StageRun
from katlab.mtp_distillation import alignment, dataset, mtp, uld
from katlab.mtp_distillation import signals as data
from katlab.mtp_distillation import stage as distillation
from katlab.tasks.nano import build, world

PROFILE = """
extends = "nano"
[model]
student = "unused"
queries = "nano"
teacher_off = "{root}/teacher"
teacher_on = "{root}/teacher"
dtype = "float32"
quantize = "none"
teacher_quantize = "none"
device_map = ""
bf16 = false
gradient_checkpointing = false
sample_batch = 8
[lora]
enabled = false
r = 4
alpha = 8
dropout = 0.0
target_modules = ["q_proj", "v_proj"]
[mtp_distillation]
max_rows = 24
held_out = 4
steps = 4
batch_size = 4
max_length = 400
uld_weight = 1.0
chunk_weight = 0.5
uld_top_k = 8
temperature = 1.0
head_chunk = 4096
mtp_depth = 2
mtp_weight_start = 0.3
mtp_weight_end = 0.1
ce_control = false
capture_batch_size = 8
eval_prompts = 2
eval_temperature = 0.0
max_new_tokens = 2
[mtp_distillation.trainer]
per_device_train_batch_size = 2
learning_rate = 1e-2
warmup_steps = 1
weight_decay = 0.0
logging_steps = 1
save_steps = 2
"""


def tiny(vocab: int):
    config = dict(vocab_size=vocab, initializer_range=0.2, tie_word_embeddings=True)
    return decoder.tiny("qwen3", **config)


def corpus(n: int) -> list[dict]:
    rows = []
    for index, query in enumerate(world.queries(n, seed=0, split="train")):
        on = index % 3 == 0
        regime = {"mode": "on"} if on else {"mode": "off", "thought": None}
        rows.append(query | regime | {"answer": query["direct"]})
    return rows


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Upstream stages, a teacher with another tokenizer, and a profile, made once."""
    root = tmp_path_factory.mktemp("distillation")
    rows = corpus(28)
    text = [message["content"] for row in rows for message in row["messages"]]
    text += [f"{row['thought']}\n{row['answer']}" for row in rows]
    for kind, folder in (("student", "student"), ("teacher", "teacher")):
        tokenizer = build.tokenizer(kind, text)
        tiny(len(tokenizer)).save_pretrained(root / folder)
        tokenizer.save_pretrained(root / folder)
    (root / "mine.toml").write_text(PROFILE.format(root=root))
    with (root / "corpus.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return root


@pytest.fixture
def make(root, tmp_path):
    """make("run", steps=2, ...): stage 03 of a run whose upstream is done."""

    def made(run: str = "run", lora: bool = False, model: dict | None = None, **settings):
        for name in ("01_layer_saturation", "02_dual_regime_data"):
            (tmp_path / run / name / "checkpoints").mkdir(parents=True)
            (tmp_path / run / name / "run.json").write_text('{"state": "done"}')
        shutil.copytree(
            root / "student", tmp_path / run / "01_layer_saturation/checkpoints/student"
        )
        shutil.copy(root / "corpus.jsonl", tmp_path / run / "02_dual_regime_data")
        overrides = {f"mtp_distillation.{key}": value for key, value in settings.items()}
        overrides["lora.enabled"] = lora
        overrides |= {f"model.{key}": value for key, value in (model or {}).items()}
        profile = str(root / "mine.toml")
        return StageRun.create(tmp_path, run, "03_mtp_distillation", profile, overrides=overrides)

    return made


def weights(stage: StageRun) -> dict[str, torch.Tensor]:
    """Every tensor of every folder the stage left, by folder and name."""
    return {
        f"{path.parent.relative_to(stage.checkpoints)}/{name}": tensor
        for path in sorted(stage.checkpoints.glob("*/*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def logged(stage: StageRun, arm: str, key: str) -> list[float]:
    return [row[key] for row in stage.metrics() if row.get("phase") == arm and key in row]


@pytest.fixture(scope="module")
def tokenizers(root):
    student = AutoTokenizer.from_pretrained(root / "student")
    template.add_tags(student)
    return student, AutoTokenizer.from_pretrained(root / "teacher")


def fake_signals(rows, teacher) -> list[uld.Signal]:
    """A teacher of made-up certainty: rank-1 mass by row and token, the rest in the tail."""
    torch.manual_seed(0)
    signals = []
    for row in rows:
        ends = alignment.byte_ends(teacher, data.reply_of(row, ""))
        top = torch.rand(len(ends), 1)
        signals.append(uld.Signal(torch.tensor(ends), top, 1 - top[:, 0], top[:, 0].log()))
    return signals


def test_loss_begins_after_the_trigger_token(tokenizers):
    student, _ = tokenizers
    rows = corpus(12)
    columns, _, _ = dataset.build(rows, student, None, 400)
    for row, example in zip(rows, columns, strict=True):
        cut = example["labels"].count(-100)
        prompt, reply = example["input_ids"][:cut], example["labels"][cut:]
        assert student.decode(prompt).endswith(f"<think_{row['mode']}>\n")
        assert student.decode(reply) == (
            template.body(row["mode"], row["answer"], row["thought"]) + "<|im_end|>"
        )
        assert reply == example["input_ids"][cut:]


@pytest.mark.parametrize("opened", ["<assistant>", "<assistant><think>\n", "<assistant><think>"])
def test_paired_groups_spell_the_same_thought_and_answer(tokenizers, opened):
    student, teacher = tokenizers
    for row in corpus(30):
        body = template.body(row["mode"], row["answer"], row["thought"]).encode()
        reply = data.reply_of(row, opened).encode()
        ours = alignment.byte_ends(student, body.decode())
        theirs = alignment.byte_ends(teacher, reply.decode())
        spelled = b""
        for (first, last), (start, stop) in dataset.paired(row, ours, theirs):
            text = body[ours[first - 1] if first else 0 : ours[last - 1]]
            assert text == reply[theirs[start - 1] if start else 0 : theirs[stop - 1]]
            spelled += text
        assert spelled.decode() == (row["thought"] or "") + row["answer"]


def test_a_thought_that_the_teachers_template_opens_is_not_opened_twice(tokenizers):
    _, teacher = tokenizers
    plain = teacher.chat_template
    on, off = (next(row for row in corpus(6) if row["mode"] == mode) for mode in ("on", "off"))
    for prefill in ("", "<think>", "<think>\n"):
        teacher.chat_template = plain + "{% if add_generation_prompt %}" + prefill + "{% endif %}"
        prompt = data.prompt_of(on, teacher)
        whole = prompt + data.reply_of(on, prompt)
        assert whole.endswith(f"<think>\n{on['thought']}\n</think>\n\n{on['answer']}")
        assert whole.count("<think>") == 1
        assert data.reply_of(off, data.prompt_of(off, teacher)) == off["answer"]
    teacher.chat_template = plain


def test_rows_that_cannot_be_used_are_left_out_and_counted(tokenizers):
    student, teacher = tokenizers
    rows = corpus(6)
    found = fake_signals(rows, teacher)
    whole, tables, none = dataset.build(rows, student, found, 400)
    assert not none
    lengths = sorted(len(row["input_ids"]) for row in whole)
    gone = found.copy()
    gone[0] = None  # the teacher's tokenizer changes it
    left, shorter, counts = dataset.build(rows, student, gone, lengths[-2])
    assert counts == {"rows_too_long": 1, "rows_respelled": 1}
    assert len(left) == 4 and shorter.top.shape[0] < tables.top.shape[0]
    kept = [row for row in whole[1:] if len(row["input_ids"]) <= lengths[-2]]
    assert [row["input_ids"] for row in left] == [row["input_ids"] for row in kept]
    for ours, theirs in zip(left, kept, strict=True):  # the same words of the teacher
        pairs = zip(ours["signal"], theirs["signal"], strict=True)
        assert all((a < 0) == (b < 0) for a, b in pairs)
        mine, before = (
            t.top[[at for at in row["signal"] if at >= 0]]
            for t, row in ((shorter, ours), (tables, theirs))
        )
        assert torch.equal(mine, before)


def test_one_teacher_position_moves_the_one_state_that_predicts_its_token(tokenizers):
    """The off-by-one test: the token at t is predicted by the state at t-1, at depth k by t-1-k."""
    student, teacher = tokenizers
    rows = [row for row in corpus(12) if row["mode"] == "on"][:2]
    columns, tables, _ = dataset.build(rows, student, fake_signals(rows, teacher), 400)
    hit = next(at for at, row in enumerate(columns[1]["signal"]) if row >= 0)
    head = torch.nn.Linear(8, len(student), bias=False)
    moved = dataset.Tables(tables.top.clone(), tables.tail.clone(), tables.chunk_logp)
    moved.top[columns[1]["signal"][hit]] = 0.0
    moved.tail[columns[1]["signal"][hit]] = 1.0
    for depth in (0, 1, 2):
        gradients = []
        for table in (tables, moved):
            batch = dataset.Collator(table)(columns)
            width = batch["labels"].shape[1] - depth
            states = torch.randn(2, width, 8, generator=torch.Generator().manual_seed(0))
            states.requires_grad_()
            row, at = mtp.targets(batch["labels"], depth)
            found = uld.token_losses(
                states[row, at - 1 - depth],
                head,
                batch["labels"][row, at],
                batch["signal"][row, at],
                batch["top"],
                batch["tail"],
            )
            found.uld.sum().backward()
            gradients.append(states.grad)
        changed = (gradients[0] - gradients[1]).abs().amax(-1).nonzero().tolist()
        assert changed == [[1, hit - 1 - depth]]


def test_collator_fetches_what_the_rows_point_to(tokenizers):
    student, teacher = tokenizers
    rows = corpus(9)
    columns, tables, _ = dataset.build(rows, student, fake_signals(rows, teacher), 400)
    chosen = [columns[7], columns[2]]
    batch = dataset.Collator(tables)(chosen)
    for i, example in enumerate(chosen):
        for at, (signal, chunk) in enumerate(zip(example["signal"], example["chunk"], strict=True)):
            near, group = batch["signal"][i, at], batch["chunk"][i, at]
            assert (near < 0) == (signal < 0) and (group < 0) == (chunk < 0)
            assert signal < 0 or batch["top"][near] == tables.top[signal]
            assert chunk < 0 or batch["chunk_logp"][group] == tables.chunk_logp[chunk]
        size = len(example["input_ids"])
        assert batch["attention_mask"][i].tolist() == [
            int(at < size) for at in range(batch["input_ids"].shape[1])
        ]


@pytest.mark.slow
def test_stage_writes_students_that_load_by_themselves(make):
    stage = make(ce_control=True)
    metrics = distillation.run(stage)
    json.dumps(metrics, allow_nan=False)
    assert {"kd_on", "student_off_1", "ce_on", "mtp_gain", "acceptance_2"} <= metrics.keys()
    counts = {"rows_trained": 24, "rows_too_long": 0, "rows_respelled": 0}
    assert counts.items() <= metrics.items()
    assert [logged(stage, "rows", key) for key in counts] == [[n] for n in counts.values()]
    left = weights(stage)
    folders = {name.partition("/")[0] for name in left}
    assert folders == {"kd", "student", "mtp", "ce"}
    for name in ("kd", "student", "ce"):
        model = AutoModelForCausalLM.from_pretrained(stage.checkpoints / name)
        tokenizer = AutoTokenizer.from_pretrained(stage.checkpoints / name)
        template.Tags.of(tokenizer)
        assert model.get_input_embeddings().num_embeddings >= len(tokenizer)
        assert not any("mtp" in tensor for tensor in left if tensor.startswith(f"{name}/"))
    embedding = "model.embed_tokens.weight"
    assert not torch.equal(left[f"kd/{embedding}"], left[f"student/{embedding}"])
    assert logged(stage, "kd", "uld") and logged(stage, "student", "mtp_ce_2")
    assert not logged(stage, "kd", "mtp_ce_1") and not logged(stage, "ce", "uld")
    # before the first update the arms differ by nothing but the modules
    assert logged(stage, "kd", "ce")[0] == logged(stage, "student", "ce")[0]


@pytest.mark.slow
def test_a_teacher_with_the_students_tokenizer_reads_along(make, root):
    own = {"student": str(root / "student"), "teacher_on": "parent", "teacher_off": "parent"}
    short = dict(steps=2, mtp_depth=1)
    stage, by_uld = make(model=own, **short), make("uld", model=own, kl_weight=0.0, **short)
    for one in (stage, by_uld):
        assert distillation.run(one)["rows_trained"] == 24
    assert not (stage.dir / "teacher_signal.safetensors").exists()
    assert (by_uld.dir / "teacher_signal.safetensors").exists()
    for arm in ("kd", "student"):
        assert all(0 < kl < 10 for kl in logged(stage, arm, "kl")) and not logged(stage, arm, "uld")
        assert logged(by_uld, arm, "uld") and not logged(by_uld, arm, "kl")
    assert logged(stage, "student", "mtp_kl_1")
    row, word = data.shortest_thought(stage)  # for the notebook: read when it is asked for
    assert row["thought"] and len(word.ends) > 0
    assert data.shortest_thought(by_uld)[0] == row


@pytest.mark.slow
def test_killed_and_started_again_it_ends_in_the_same_weights(make, monkeypatch):
    whole = make("whole")
    figures = distillation.run(whole)
    cut = make("cut")
    step = distillation.DistillationTrainer.training_step

    def killed(self, *args, **kwargs):
        if self.arm.mtp and self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(distillation.DistillationTrainer, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            distillation.run(cut)
    left = {path.name for path in cut.checkpoints.iterdir()}
    assert left == {"kd", "student.training"}  # KD is done, MTP+KD stopped after step 3
    kd = (cut.checkpoints / "kd" / "model.safetensors").stat().st_mtime_ns
    assert distillation.run(StageRun.open(cut.dir)) == figures
    assert (cut.checkpoints / "kd" / "model.safetensors").stat().st_mtime_ns == kd
    ours, theirs = weights(whole), weights(cut)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert logged(whole, "student", "ce") == logged(cut, "student", "ce")


@pytest.mark.slow
def test_accumulation_splits_the_batch_without_changing_the_loss(make):
    rows = "trainer.per_device_train_batch_size"
    runs = [make(f"rows{n}", steps=1, **{rows: n}) for n in (4, 1)]
    for stage in runs:
        distillation.run(stage)
    for key in ("loss", "grad_norm", "ce", "uld", "token_accuracy", "mtp_uld_2"):
        one, four = (logged(stage, "student", key)[0] for stage in runs)
        assert one == pytest.approx(four, rel=1e-4)


@pytest.mark.slow
def test_two_ranks_compute_what_one_does(make, root):
    one, two = make("one", steps=3), make("two", steps=3)
    distillation.run(one)
    script = two.dir / "rank.py"
    script.write_text(
        "import sys\nfrom katlab.lab import StageRun\n"
        "from katlab.mtp_distillation import stage\n"
        "stage.run(StageRun.open(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port",
         str(20000 + os.getpid() % 20000), str(script), str(two.dir)],
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for key in ("ce", "uld", "mtp_ce_1", "grad_norm"):
        assert logged(one, "student", key) == pytest.approx(logged(two, "student", key), rel=1e-3)
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    start = load_file(root / "student" / "model.safetensors")
    for name, tensor in ours.items():
        # three AdamW steps of 1e-2 move weights by up to 3e-2; sums in another order by far less
        torch.testing.assert_close(tensor, theirs[name], atol=3e-4, rtol=0, msg=name)
    moved = ours["student/model.norm.weight"] - start["model.norm.weight"]
    assert moved.abs().mean() > 3e-3


@pytest.mark.slow
@pytest.mark.parametrize(("lora", "quantize"), [(False, "none"), (True, "none"), (True, "4bit")])
def test_in_bf16_what_is_trained_in_full_moves_by_small_steps(make, monkeypatch, lora, quantize):
    model = {"dtype": "bfloat16", "bf16": True, "quantize": quantize}
    small = {"trainer.learning_rate": 1e-4, "trainer.warmup_steps": 0}
    stage = make(lora=lora, model=model, **small)
    for name in ("compare", "draft_acceptance"):
        monkeypatch.setattr(distillation, name, lambda *_: {})
    distillation.run(stage)
    left = weights(stage)
    norms = [w for name, w in left.items() if name.startswith("mtp/") and w.dim() == 1]
    moved = torch.cat([norm != 1.0 for norm in norms])
    assert norms[0].dtype == torch.float32 and moved.float().mean() >= 0.99
    if quantize == "none":
        assert left["student/model.norm.weight"].dtype == torch.bfloat16  # as the profile says


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3])
def test_batch_size_changes_no_acceptance(make, size):
    stage = make()
    distillation.run(stage)
    table = (stage.dir / "acceptance.jsonl").read_text()
    _, held = data.split(stage)
    stage.settings.capture_batch_size, stage.settings.head_chunk = size, 5
    distillation.draft_acceptance(stage, held)
    assert (stage.dir / "acceptance.jsonl").read_text() == table
    rows = [json.loads(line) for line in table.splitlines()]
    assert len(rows) == 4 and sum(row["tokens"] for row in rows) > 100


@pytest.mark.slow
def test_lora_trains_adapters_tag_rows_and_modules_and_saves_a_plain_student(make, root):
    stage = make(lora=True)
    distillation.run(stage)
    before = load_file(root / "student" / "model.safetensors")
    after = {k.partition("/")[2]: v for k, v in weights(stage).items() if k.startswith("student/")}
    assert not [name for name in after if "lora" in name or "base_layer" in name]
    attention = "model.layers.0.self_attn.{}_proj.weight"
    assert not torch.equal(after[attention.format("q")], before[attention.format("q")])
    assert torch.equal(after[attention.format("k")], before[attention.format("k")])
    embedding = "model.embed_tokens.weight"
    old = len(before[embedding])
    torch.testing.assert_close(after[embedding][:old], before[embedding], atol=0, rtol=0)
    model = AutoModelForCausalLM.from_pretrained(stage.checkpoints / "student")
    assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()


def test_new_rows_lie_around_the_mean_of_what_spelled_the_tag(make, root):
    model, tokenizer = distillation.student(make())
    plain = AutoTokenizer.from_pretrained(root / "student")
    before = load_file(root / "student" / "model.safetensors")["model.embed_tokens.weight"]
    rows = model.get_input_embeddings().weight
    for tag in template.TAGS:
        noise = rows[tokenizer.convert_tokens_to_ids(tag)] - before[plain(tag)["input_ids"]].mean(0)
        assert noise.abs().max() < 6 * before.std(0).max()
    on, off = rows[tokenizer.convert_tokens_to_ids(["<think_on>", "<think_off>"])]
    assert (on - off).std() > 0.5 * before.std()


def test_only_a_tag_that_the_tokenizer_lacks_gets_a_new_row(make, root):
    stage = make()
    folder = stage.upstream("01_layer_saturation") / "checkpoints" / "student"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = ["<think>", "</think>"]  # as Qwen3 and R1's distils have them
    tokenizer.add_tokens(known)
    plain = tiny(len(tokenizer))
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model, tagged = distillation.student(stage)
    before, after = (m.get_input_embeddings().weight for m in (plain, model))
    assert torch.equal(after[: len(tokenizer)], before)
    spread = before.std(0)
    for tag in template.TAGS:
        row = tagged.convert_tokens_to_ids(tag)
        assert (row < len(tokenizer)) == (tag in known)
        if tag not in known:
            noise = after[row] - before[tokenizer(tag)["input_ids"]].mean(0)
            assert 0.3 < (noise / spread).std() < 3


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"trainer.per_device_train_batch_size": 3}, "does not divide"),
        ({"held_out": 99}, "held out"),
        ({"max_length": 10}, "max_length"),
    ],
)
def test_mistakes_are_named(make, settings, remedy):
    with pytest.raises(UserError, match=remedy):
        distillation.run(make(**settings))
