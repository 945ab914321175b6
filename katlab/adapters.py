"""LoRA or QLoRA on a model (section `[lora]` of a profile), and its adapter as a file of its own.

Profiles from 0.5B up train through PEFT; the nano tests take the same path. The report trains all
parameters of its 40B; LoRA is this workbench's road for small machines.

    model = adapters.attach(model, stage.config.lora, new_token_ids)
"""

from pathlib import Path
from types import SimpleNamespace

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from katlab import UserError


def attach(
    model: PreTrainedModel, lora: SimpleNamespace, new_token_ids: list[int] | None = None
) -> PreTrainedModel | PeftModel:
    """LoRA adapters on `lora.target_modules` plus trainable rows for new tokens (the mode tags).

    Only the rows `new_token_ids` of the embedding are trained, and of the output head where that is
    a matrix of its own; with tied embeddings PEFT ties the head's rows to the embedding's. Returns
    the model unchanged when `lora.enabled` is false. A 4- or 8-bit model becomes QLoRA.
    """
    if not lora.enabled:
        return model
    rows = sorted(new_token_ids or [])
    if rows and max(rows) >= model.get_input_embeddings().num_embeddings:
        raise UserError("A new token has no embedding row; call resize_token_embeddings first.")
    if getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    trainable = {"embed_tokens": rows}
    if not model.config.tie_word_embeddings:
        trainable["lm_head"] = rows
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            trainable_token_indices=trainable if rows else None,
        ),
    )


def file(folder: Path) -> Path:
    """Where `keep` puts a student's adapter; one that was trained in full has none."""
    return folder / "adapter" / "adapter_model.safetensors"


def put(model: PeftModel, kept: Path) -> None:
    """Give a model's adapters, and rows of new tokens, the weights that `keep` kept.

    Raises UserError where they are of another rank, of other modules or of other tokens.
    """
    try:
        found = set_peft_model_state_dict(model, load_file(kept))
    except RuntimeError as error:
        raise UserError(f"{kept} does not fit the profile's [lora] ({error}).") from error
    if found.unexpected_keys:
        raise UserError(f"{kept} does not fit the profile's [lora]: {found.unexpected_keys[0]}.")


def keep(model: PeftModel, folder: Path, dtype: torch.dtype) -> None:
    """Write a model's adapters and rows of new tokens to `file(folder)` in `dtype`.

    The model's own are rounded likewise, so that what is merged of them and what `put` reads again
    make the same student.
    """
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    with torch.no_grad():
        for tensor in state.values():
            tensor.copy_(tensor.to(dtype))
    kept = file(folder)
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.to(dtype).contiguous().cpu() for name, t in state.items()}, kept)
    model.peft_config["default"].save_pretrained(kept.parent)
