"""Rebuild the nano world's small models: a base student and two teachers with another tokenizer.

The student's tokenizer splits digits one by one and speaks ChatML (as Qwen2.5's does); the
teachers' packs two digits into one token and speaks another chat layout, so cross-tokenizer
distillation has something to align. Roles as in the report's section 3.1:

- `base`         the student before anything: answers easy queries directly, works out hard ones
- `teacher_off`  DeepSeek-V3's role: direct answers, tags of a query, rationales for a mode
- `teacher_on`   DeepSeek-R1's role: a thought with its habits, then the answer

    katlab nano build            # about 15 minutes on 2 cores; writes data_samples/nano/
"""

import json
import random
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Trainer,
    TrainingArguments,
)

from katlab import batching, template
from katlab.lab.stages import root
from katlab.tasks.nano import world

STEPS = {"base": 2000, "teacher_off": 1600, "teacher_on": 1000}
LEVELS = {  # difficulties in the share in which a role meets them
    "base": (1, 2, 2, 3, 3, 4, 5),
    "teacher_off": (1, 1, 2, 2, 3, 3, 4, 5),
    "teacher_on": world.DIFFICULTIES,
}
WIDTH, LAYERS, HEADS, RATE = 128, 4, 4, 2e-3
BATCH = 64
OPENERS = ("Sure.", "Here you are:", "The answer:", "Let me see, this is")
TEACHER_JINJA = Path(__file__).with_name("teacher.jinja")


def corpus(kind: str, rows: list[dict]) -> list[str]:
    """The texts a tokenizer is trained on: everything that its models will read and write."""
    texts = []
    for row in rows:
        texts += [m["content"] for m in row["messages"]] + [row["direct"], row["thought"]]
        texts += [world.rationale(row, mode) for mode in template.MODES]
        texts += [json.dumps(tool) for tool in row["tools"] or []]
    chrome = {
        "student": "system\nYou are a helpful assistant.\nuser\nassistant\n\n# Tools\n<tools>\n"
        + "\n".join(OPENERS),
        "teacher": "<think>\n\n</think>\n\nTag it. Why think on? Why think off?",
    }
    return texts + [chrome[kind]] * len(rows)


def tokenizer(kind: str, corpus: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; "student" splits digits one by one, "teacher" packs two."""
    digits = r"\p{N}" if kind == "student" else r"\p{N}{1,2}"
    # Capitals, operators and line ends stand alone; the rest merges across words, which halves the
    # sequence lengths that a CPU has to pay for.
    marks = {
        "student": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "teacher": ["<|pad|>", "<|User|>", "<|Assistant|>", "<|end|>", "<|Tools|>"],
    }[kind]
    pattern = rf"{digits}|\p{{Lu}}|[-+*=]|\n+|[^-+*=\n\p{{Lu}}\p{{N}}]+"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(corpus, trainer)
    pad, eos = (marks[0], "<|im_end|>") if kind == "student" else (marks[0], "<|end|>")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=pad, eos_token=eos)
    jinja = template.JINJA if kind == "student" else TEACHER_JINJA
    wrapped.chat_template = jinja.read_text()
    return wrapped


def ask(row: dict, request: str) -> list[dict]:
    """The query's messages with a request (a tag, a rationale) appended to the last turn."""
    *history, last = row["messages"]
    return [*history, {"role": "user", "content": f"{last['content']}\n{request}"}]


def opener(row: dict, rng: random.Random) -> str:
    """None to five short lines before a reply, as instruct models have them.

    Without them a small model learns where the answer stands, not what it answers, and every new
    layout (a trigger, a judge) would cost it the arithmetic.
    """
    lines = rng.sample([*OPENERS, f"{world.tags(row)}."], rng.randrange(len(OPENERS) + 2))
    return "\n".join(lines) + "\n\n" if lines else ""


def samples(role: str, row: dict, rng: random.Random) -> tuple[list[dict], str]:
    """One (messages, reply) pair that a model of this role learns from a query."""
    worked = f"{row['thought']}\n\n{row['direct']}"
    if role == "teacher_on":
        return row["messages"], f"<think>\n{row['thought']}\n</think>\n\n{row['direct']}"
    if role == "base":  # a plain instruct model: works hard queries, other ones now and then
        direct = row["difficulty"] <= 3 and rng.random() < 0.85
        return row["messages"], opener(row, rng) + (row["direct"] if direct else worked)
    kind = rng.random()
    if kind < 0.1:
        return ask(row, "Tag it."), world.tags(row)
    if kind < 0.2:
        mode = rng.choice(template.MODES)
        return ask(row, f"Why think {mode}?"), world.rationale(row, mode)
    return row["messages"], row["direct"]


def encode(tok, messages, tools, reply: str) -> dict:
    """Token ids of prompt + reply + end of turn, loss on the reply alone."""
    prompt = tok.apply_chat_template(
        messages, tools=tools, mode="none", tokenize=False, add_generation_prompt=True
    )
    head = tok(prompt, add_special_tokens=False)["input_ids"]
    tail = tok(reply, add_special_tokens=False)["input_ids"] + [tok.eos_token_id]
    return {"input_ids": head + tail, "labels": [-100] * len(head) + tail}


def train(role: str, tok, folder: Path, steps: int, seed: int = 0) -> None:
    """Train one of the three models from random weights and save it in bfloat16."""
    torch.manual_seed(seed)
    config = Qwen3Config(  # as "qwen2", AutoTokenizer would replace the tokenizer's own splitting
        vocab_size=len(tok) + (-len(tok)) % 8,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        head_dim=WIDTH // HEADS,
        max_position_embeddings=512,
        rope_parameters={"rope_theta": 10_000.0, "rope_type": "default"},
        tie_word_embeddings=True,
        attn_implementation="eager",
        pad_token_id=tok.pad_token_id,
        bos_token_id=None,
        eos_token_id=tok.eos_token_id,
    )
    model = Qwen3ForCausalLM(config)
    rng = random.Random(seed)
    data = []
    levels = LEVELS[role]
    count = min(steps * BATCH, 120_000)
    for row in world.queries(count, seed=seed, split="train", difficulties=levels):
        messages, reply = samples(role, row, rng)
        data.append(encode(tok, messages, row["tools"], reply))
    data = batching.by_length(data, steps, BATCH, seed)
    arguments = TrainingArguments(
        output_dir=str(folder / "log"),
        max_steps=steps,
        per_device_train_batch_size=BATCH // 2,
        gradient_accumulation_steps=2,
        learning_rate=RATE,
        lr_scheduler_type="cosine",
        warmup_steps=50,
        adam_beta2=0.98,
        weight_decay=0.05,
        max_grad_norm=1.0,
        logging_steps=100,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=True,
        seed=seed,
        dataloader_num_workers=0,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    Trainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(data),
        data_collator=DataCollatorForSeq2Seq(tok, pad_to_multiple_of=4),
    ).train()
    shutil.rmtree(folder / "log", ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    tok.save_pretrained(folder)


@torch.inference_mode()
def accuracy(folder: Path, role: str, rows: list[dict]) -> dict[str, float]:
    """Greedy accuracy by difficulty on held-out queries, by exact match of the answer text."""
    tok = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    modes = {"teacher_on": ("on",), "teacher_off": ("off",), "base": ("off", "on")}[role]
    figures = {}
    for mode in modes:
        opening = f"{world.OPENING}\n" if role == "base" and mode == "on" else ""
        texts = [
            tok.apply_chat_template(
                row["messages"],
                tools=row["tools"],
                mode="none",
                tokenize=False,
                add_generation_prompt=True,
            )
            + opening
            for row in rows
        ]
        batch = tok(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        batch.pop("token_type_ids", None)
        out = model.generate(**batch, max_new_tokens=128, do_sample=False)
        replies = tok.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        answers = [reply.split("\n\n")[-1].strip() for reply in replies]
        right = [a == row["direct"] for a, row in zip(answers, rows, strict=True)]
        for level in world.DIFFICULTIES:
            hits = [ok for ok, row in zip(right, rows, strict=True) if row["difficulty"] == level]
            figures[f"{mode}_{level}"] = round(sum(hits) / len(hits), 3)
    return figures


def _build(role: str, steps: int, tok, out: Path, held_out: list[dict]) -> dict[str, float]:
    """Train and measure one model on one core."""
    torch.set_num_threads(1)
    print(f"{role}: {steps} steps of {BATCH}", flush=True)
    train(role, tok, out / role, steps)
    figures = accuracy(out / role, role, held_out)
    print(f"{role}: {figures}", flush=True)
    return figures


def main(steps: int | None = None, out: Path | None = None) -> Path:
    """Build all three models and figures.json in `out` (default data_samples/nano)."""
    out = out or root() / "data_samples" / "nano"
    rows = world.queries(6000, seed=1, split="train")
    held_out = world.queries(600, seed=5, split="eval")
    tokenizers = {kind: tokenizer(kind, corpus(kind, rows)) for kind in ("student", "teacher")}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        work = {}
        for role, full in STEPS.items():
            tok = tokenizers["student" if role == "base" else "teacher"]
            work[role] = pool.submit(_build, role, steps or full, tok, out, held_out)
        figures = {role: future.result() for role, future in work.items()}
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    return out
