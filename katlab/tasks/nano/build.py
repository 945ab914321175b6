"""Rebuild the nano world's small models: a base student and two teachers with another tokenizer.

The student's tokenizer merges across words and speaks ChatML (as Qwen2.5's does); the teachers'
joins a space to what follows it and speaks another chat layout, so cross-tokenizer distillation has
something to align. Both split digits one by one: with two in a token a sum is a table of 10,000
entries. Roles as in the report's section 3.1:

- `base`         the student before anything: a coin decides whether it answers directly
- `teacher_off`  DeepSeek-V3's role: direct answers, tags of a query, rationales for a mode
- `teacher_on`   DeepSeek-R1's role: a thought with its habits, then the answer

    katlab nano build            # an hour of one core, three models at a time; data_samples/nano/
"""

import itertools
import json
import random
import shutil
import string
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
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
from katlab.lab import profiles
from katlab.lab.stages import root
from katlab.tasks import wishes
from katlab.tasks.nano import world

STEPS = {"base": 3500, "teacher_off": 8000, "teacher_on": 5000}
WIDTH, LAYERS, HEADS, RATE = 128, 4, 4, 3e-3
BATCH = 64
ROWS = 240_000  # a longer training reads them again
OPENERS = ("Sure.", "Here you are:", "The answer:", "Let me see, this is")
# The base says how it will answer. Were its first digit the choice, sampling below temperature 1
# would favour a thought where the answer is uncertain, and the coin would not be fair.
SAYS = {"on": "Step by step:", "off": "At once:"}
TEACHER_JINJA = Path(__file__).with_name("teacher.jinja")


def corpus(kind: str, rows: list[dict]) -> list[str]:
    """The texts a tokenizer is trained on: everything that its models will read and write."""
    texts = []
    words = profiles.load("nano").prompts
    said = itertools.cycle([*wishes.trained(words, "on"), *wishes.trained(words, "off")])
    for row in rows:
        texts += [m["content"] for m in row["messages"]] + [row["direct"], row["thought"]]
        texts += [world.rationale(row, mode) for mode in template.MODES]
        texts += [json.dumps(tool) for tool in row["tools"] or []]
        texts += [f"{row['messages'][-1]['content']} {next(said)}"] * (kind == "student")
    chrome = {
        "student": "system\nYou are a helpful assistant.\nuser\nassistant\n\n# Tools\n<tools>\n"
        + "\n".join([*OPENERS, *SAYS.values()]),
        "teacher": "<think>\n\n</think>\n\nTag it. Why think on? Why think off?",
    }
    return texts + [chrome[kind]] * len(rows)


def tokenizer(kind: str, corpus: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; a space is the student's own token, the teacher's next one's part."""
    # Digits, capitals, operators and line ends stand alone. The student's other text merges across
    # words, which halves the sequences that a CPU pays for; the teachers' merges within a word, and
    # a space joins the digit or the word that follows it.
    marks, pattern = {
        "student": (
            ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            r"\p{N}|\p{Lu}|[-+*=]|\n+|, ?|[^-+*=,\n\p{Lu}\p{N}]+",
        ),
        "teacher": (
            ["<|pad|>", "<|User|>", "<|Assistant|>", "<|end|>", "<|Tools|>"],
            r" ?\p{N}|\p{Lu}|[-+*=]|\n+| ?[^-+*=\s\p{Lu}\p{N}]+|\s",
        ),
    }[kind]
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
    return "".join(f"{line}\n" for line in lines)


def samples(role: str, row: dict, rng: random.Random) -> tuple[list[dict], str]:
    """One (messages, reply) pair that a model of this role learns from a query.

    Half of the base's replies stand in tags that the query names: a base that has seen one layout
    alone pays for every other one with its arithmetic.
    """
    if role == "teacher_on":
        return row["messages"], f"<think>\n{row['thought']}\n</think>\n\n{row['direct']}"
    if role == "base":  # whether it works a query out has nothing to do with the query
        mode = rng.choice(template.MODES)
        parts = [*([row["thought"]] if mode == "on" else []), row["direct"]]
        messages, start = row["messages"], "\n\n"
        if rng.random() < 0.5:
            names = rng.sample(string.ascii_uppercase, 2)
            messages, start = ask(row, f"Tags: {' '.join(names)}."), "\n"
            ends = zip(names[-len(parts) :], parts, strict=True)
            parts = [f"<{name}>\n{part}\n</{name}>" for name, part in ends]
        return messages, f"{opener(row, rng)}{SAYS[mode]}{start}" + "\n\n".join(parts)
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


def read(steps: int, seed: int) -> list[dict]:
    """The queries a model reads in so many steps: problems that nothing is evaluated on."""
    return world.queries(min(steps * BATCH, ROWS), seed=seed, split="train")


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
    for row in read(steps, seed):
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
def figures(folder: Path, role: str, rows: list[dict]) -> dict[str, float]:
    """Accuracy by mode and difficulty on held-out queries, sampled at temperature 0.6.

    The base chooses its mode itself: `rate` is how often it works a query out.
    """
    tok = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(0)
    plain = {"mode": "none", "tokenize": False, "add_generation_prompt": True}
    texts = [tok.apply_chat_template(r["messages"], tools=r["tools"], **plain) for r in rows]
    replies = []
    for at in range(0, len(rows), 300):
        batch = tok(texts[at : at + 300], return_tensors="pt", padding=True)
        batch.pop("token_type_ids", None)
        out = model.generate(
            **batch, max_new_tokens=160, do_sample=True, temperature=0.6, top_p=0.95
        )
        new = out[:, batch["input_ids"].shape[1] :]
        replies += tok.batch_decode(new, skip_special_tokens=True)
    table = pd.DataFrame({"difficulty": [row["difficulty"] for row in rows]})
    table["right"] = [
        reply.split("\n\n")[-1].strip() == row["direct"]
        for reply, row in zip(replies, rows, strict=True)
    ]
    table["on"] = [role == "teacher_on" or works(reply) for reply in replies]
    found = {}
    for level, here in table.groupby("difficulty"):
        for mode, chosen in (("off", here[~here["on"]]), ("on", here[here["on"]])):
            if len(chosen):
                found[f"{mode}_{level}"] = round(float(chosen["right"].mean()), 3)
        found[f"rate_{level}"] = round(float(here["on"].mean()), 3)
    return found


def works(reply: str) -> bool:
    """Whether a reply of the base has a thought between what it says of it and the answer."""
    *before, _ = reply.split("\n\n")
    last = before[-1].strip().splitlines()[-1] if before and before[-1].strip() else ""
    return bool(last) and last not in SAYS.values()


def _build(role: str, steps: int, tok, out: Path, held_out: list[dict]) -> dict[str, float]:
    """Train and measure one model on one core."""
    torch.set_num_threads(1)
    print(f"{role}: {steps} steps of {BATCH}", flush=True)
    train(role, tok, out / role, steps)
    found = figures(out / role, role, held_out)
    print(f"{role}: {found}", flush=True)
    return found


def main(steps: int | None = None, out: Path | None = None) -> Path:
    """Build all three models and figures.json in `out` (default data_samples/nano)."""
    out = out or root() / "data_samples" / "nano"
    rows = world.queries(3000, seed=1, split="train")
    held_out = world.queries(6000, seed=5, split="eval")
    tokenizers = {kind: tokenizer(kind, corpus(kind, rows)) for kind in ("student", "teacher")}
    with ProcessPoolExecutor(len(STEPS), mp_context=get_context("spawn")) as pool:
        work = {}
        for role, full in STEPS.items():
            tok = tokenizers["student" if role == "base" else "teacher"]
            work[role] = pool.submit(_build, role, steps or full, tok, out, held_out)
        found = {role: future.result() for role, future in work.items()}
    (out / "figures.json").write_text(json.dumps(found, indent=1) + "\n")
    return out
