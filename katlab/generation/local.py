"""Sample completions from a local model: left-padded batches of like length, one seed per batch.

A thin layer over `model.generate`; every stage that needs text from a local model comes here.
What the checkpoint's generation_config suggests (a repetition penalty, suppressed tokens) is left
out: sampling takes its own settings alone, or votes and evaluation would see another policy than
the one that is trained.

    ids = local.sample(model, tokenizer, prompts, max_new_tokens=128, temperature=1.0, seed=0)
"""

import hashlib
import json
from collections.abc import Callable

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from katlab import UserError, template
from katlab.lab import Journal

SMALLEST_BATCH = 32  # prompts; larger batches are cut so that a kill loses 1 % of the replies


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    batch_size: int = 128,
    seed: int = 0,
    journal: Journal | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Return the generated token ids (end token included, padding removed) of each prompt.

    Temperature 0 is greedy. Prompts of like length share a batch, so little is padded; the order
    of the result is that of `prompts`. A batch is drawn from a seed of its own: with a `journal`,
    batches that it holds are read, not sampled again, and the result is the same. `on_batch(done,
    total)` is called after each batch.
    """
    if tokenizer.pad_token_id is None:
        raise UserError("the tokenizer has no pad token; set tokenizer.pad_token before sampling")
    if not prompts:  # which tokenizers refuse
        return []
    model.eval()
    encoded = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    stops = stop_ids(model, tokenizer)
    settings = drawn(max_new_tokens, temperature, top_p)
    own = GenerationConfig(**settings, pad_token_id=tokenizer.pad_token_id, eos_token_id=stops)
    size = min(batch_size, max(SMALLEST_BATCH, len(prompts) // 100))
    results: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        what = [str(model.name_or_path), settings, stops, seed, start, [prompts[i] for i in chosen]]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        rows = journal.get(key) if journal is not None else None
        if rows is None:
            torch.manual_seed(seed * 1_000_003 + start)
            rows = generate(model, tokenizer, [encoded[i] for i in chosen], own)
            if journal is not None:
                journal.put(key, rows)
        for i, row in zip(chosen, rows, strict=True):
            results[i] = row
        if on_batch is not None:
            on_batch(min(start + size, len(order)), len(order))
    return results


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end a reply: the tokenizer's, the checkpoint's, and the chat template's."""
    listed = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *template.end_ids(tokenizer)}
    ids |= set(listed if isinstance(listed, list) else [listed])
    return sorted(ids - {None})


def drawn(max_new_tokens: int, temperature: float, top_p: float) -> dict[str, object]:
    """How tokens are drawn, in transformers' names; temperature 0 is greedy."""
    greedy = temperature == 0
    how = {} if greedy else {"temperature": temperature, "top_p": top_p, "top_k": 0}
    return {"max_new_tokens": max_new_tokens, "do_sample": not greedy, **how}


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: list[list[int]],
    settings: GenerationConfig,
    **more,
) -> list[list[int]]:
    """One batch of `model.generate` with these settings alone; `more` goes to it as it is."""
    batch = tokenizer.pad({"input_ids": encoded}, padding_side="left", return_tensors="pt")
    width = batch["input_ids"].shape[1]
    suggested, model.generation_config = model.generation_config, GenerationConfig()
    try:
        out = model.generate(  # (batch, width + new)
            input_ids=batch["input_ids"].to(model.device),
            attention_mask=batch["attention_mask"].to(model.device),
            generation_config=settings,
            **more,
        )
    finally:
        model.generation_config = suggested
    return [_trim(row, settings.eos_token_id) for row in out[:, width:].tolist()]


def _trim(ids: list[int], stops: list[int]) -> list[int]:
    """Cut after the first stop token; what follows is padding."""
    end = next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]
