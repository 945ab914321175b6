"""Sample completions for many prompts: longest first, left-padded batches, one seed.

A thin layer over `model.generate`; every stage that needs text from a local model comes here.

    ids = local.sample(model, tokenizer, prompts, max_new_tokens=128, temperature=1.0, seed=0)
"""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import UserError


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
    on_batch: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Return the generated token ids (end-of-turn included, padding removed) of each prompt.

    Temperature 0 is greedy. Prompts of like length share a batch, so little is padded; the order
    of the result is that of `prompts`. `on_batch(done, total)` is called after each batch.
    """
    if tokenizer.pad_token_id is None:
        raise UserError("the tokenizer has no pad token; set tokenizer.pad_token before sampling")
    model.eval()
    torch.manual_seed(seed)
    encoded = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    stops = [tokenizer.eos_token_id]
    greedy = temperature == 0
    random_choice = {} if greedy else {"temperature": temperature, "top_p": top_p, "top_k": 0}
    results: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tokenizer.pad(
            {"input_ids": [encoded[i] for i in chosen]}, padding_side="left", return_tensors="pt"
        ).to(model.device)
        width = batch["input_ids"].shape[1]
        out = model.generate(  # (batch, width + new)
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=not greedy,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=stops,
            **random_choice,
        )
        for i, row in zip(chosen, out[:, width:].tolist(), strict=True):
            results[i] = _trim(row, stops)
        if on_batch is not None:
            on_batch(min(start + batch_size, len(order)), len(order))
    return results


def _trim(ids: list[int], stops: list[int]) -> list[int]:
    """Cut after the first stop token; what follows is padding."""
    end = next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]
