"""Multi-Token Prediction (MTP): modules that predict the token after the next, and the ones beyond.

Report section 3.1; DeepSeek-V3, arXiv 2412.19437, equations 21-25. Module k mixes the state h^{k-1}
with the embedding of the token k places ahead and passes it through one decoder layer:

    h'_i^k = M_k [RMSNorm(h_i^{k-1}) ; RMSNorm(Emb(t_{i+k}))],   h^k = Layer_k(h'^k)
    P(t_{i+k+1}) = Head(RMSNorm(h_i^k)),   L_MTP = lambda / D * sum_k L^k

Embedding and head are the student's own; so is the class of the decoder layer (Qwen2, Qwen3,
Llama). The modules serve training and are dropped from the student that is saved.

Deviations: (1) h^0 is the state *before* the student's final norm, as MiMo's layers and vLLM read
it, while DeepSeek's code feeds the normed one; (2) L^k sums over reply tokens only and is divided
by their number; (3) depth D and lambda are not in the report: lambda is DeepSeek-V3's.

    module = mtp.attach(student, depth=1)
"""

from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_causal_mask

from katlab import UserError

FILE = "mtp.safetensors"
FIRST_PART = 10.0 / 14.8  # DeepSeek-V3 section 4.2: lambda drops after 10T of 14.8T tokens


class MTPLayer(nn.Module):
    """One depth: two norms, the projection 2d -> d, a decoder layer, the norm before the head."""

    def __init__(self, causal: PreTrainedModel):
        super().__init__()
        config, decoder = causal.config, causal.get_decoder()
        width, norm = config.hidden_size, type(decoder.norm)
        self.hidden_layernorm = norm(width, eps=config.rms_norm_eps)
        self.token_layernorm = norm(width, eps=config.rms_norm_eps)
        self.input_proj = nn.Linear(2 * width, width, bias=False)
        self.block = type(decoder.layers[-1])(config, config.num_hidden_layers - 1)
        self.final_layernorm = norm(width, eps=config.rms_norm_eps)

    def forward(self, hidden: Tensor, ahead: Tensor, **attention) -> Tensor:
        """States and embeddings of the tokens ahead, both (B, S, d) -> states (B, S, d)."""
        mixed = [self.hidden_layernorm(hidden), self.token_layernorm(ahead)]
        return self.block(self.input_proj(torch.cat(mixed, -1)), **attention)


class MTP(nn.Module):
    """D modules in a chain; the result for depth k has T-k positions."""

    def __init__(self, causal: PreTrainedModel, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(MTPLayer(causal) for _ in range(depth))
        self.apply(causal._init_weights)

    def forward(
        self, causal: PreTrainedModel, hidden: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> list[Tensor]:
        """hidden (B, T, d) before the final norm -> [(B, T-k, d) for k = 1..D], ready for the head.

        Position i of result k predicts token i+k+1. Rows are padded on the right. Inside, the dtype
        is the modules' own; the results have that of `hidden`.
        """
        given, dtype = hidden.dtype, self.layers[0].input_proj.weight.dtype
        embedded = causal.get_input_embeddings()(input_ids).to(hidden.device, dtype)  # (B, T, d)
        hidden, attention_mask = hidden.to(dtype), attention_mask.to(hidden.device)
        ready = []
        for k, layer in enumerate(self.layers, start=1):
            hidden, ahead = hidden[:, :-1], embedded[:, k:]  # both (B, T-k, d)
            length = hidden.shape[1]
            positions = torch.arange(length, device=hidden.device)[None]
            mask = create_causal_mask(
                config=causal.config,
                inputs_embeds=hidden,
                attention_mask=attention_mask[:, :length],
                past_key_values=None,
                position_ids=positions,
            )
            hidden = layer(
                hidden,
                ahead,
                attention_mask=mask,
                position_ids=positions,
                position_embeddings=causal.get_decoder().rotary_emb(hidden, positions),
            )
            ready.append(layer.final_layernorm(hidden).to(given))
        return ready


def attach(model: PreTrainedModel | PeftModel, depth: int) -> MTP:
    """Put `depth` new float32 modules on the model as `model.mtp`, trained in full even under LoRA.

    In bfloat16 a norm's weight of 1 stays where it is: an AdamW step of 1e-4 is rounded away.
    """
    if depth < 1:
        raise UserError(f"mtp_depth is {depth}; use 1 or more, or train the arm without MTP.")
    causal = causal_of(model)
    device = next(causal.get_decoder().norm.parameters()).device
    model.mtp = MTP(causal, depth).to(device, torch.float32)
    return model.mtp


def detach(model: PreTrainedModel | PeftModel) -> None:
    """Drop the modules, if there are any; what stays is the plain student."""
    model._modules.pop("mtp", None)


def causal_of(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The causal language model itself, inside its LoRA wrapper if it has one."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def without(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict less the modules' weights."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("mtp.")}


def save(module: MTP, folder: Path) -> None:
    """Write the modules' weights alone as folder/mtp.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    save_file(weights, folder / FILE, metadata={"format": "pt"})


def load(module: MTP, folder: Path) -> None:
    """Read what `save` wrote; UserError if the file is not there."""
    if not (folder / FILE).is_file():
        raise UserError(f"There is no {FILE} in {folder}; train the MTP arm first.")
    module.load_state_dict(load_file(folder / FILE))


def states(
    model: PreTrainedModel | PeftModel, input_ids: Tensor, attention_mask: Tensor
) -> list[Tensor]:
    """States ready for the head, by depth: entry k is (B, T-k, d) and predicts token i+k+1.

    Entry 0 is the student's own prediction of the next token; more only if modules are attached.
    """
    causal = causal_of(model)
    decoder = causal.get_decoder()
    before: list[Tensor] = []
    hook = decoder.norm.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0]))
    try:
        output = decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    finally:
        hook.remove()
    found, module = [output.last_hidden_state], dict(model.named_children()).get("mtp")
    if module is not None:
        found += module(causal, before[0], input_ids, attention_mask)
    return [state.to(input_ids.device) for state in found]  # a model may lie on several


def targets(labels: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Row and position t of every token that depth k (0 = the student itself) has to predict.

    Its prediction stands at position t-1-k, so t > k; labels (B, T) are -100 outside the reply.
    """
    row, at = (labels != -100).nonzero(as_tuple=True)
    return row[at > depth], at[at > depth]


def weight(progress: float, start: float, end: float) -> float:
    """Lambda at `progress` (0..1) of training: `start` for the first 10/14.8, then `end`.

    DeepSeek-V3 section 4.2: 0.3 for the first 10T tokens, 0.1 for the other 4.8T.
    """
    return start if progress < FIRST_PART else end


@torch.inference_mode()
def acceptance(model: PreTrainedModel, batch: dict[str, Tensor], chunk: int = 4096) -> list[Tensor]:
    """Do the modules' drafts agree with the student? One (B, T) table per depth, by reply token.

    1 where the greedy choice of depth k for the token is the student's own greedy choice, 0
    where not, -1 outside the reply. Both read the given text (input_ids, attention_mask, labels of
    `batch`, all (B, T)), not the student's own, and every depth is counted alone: this is one-step
    agreement on the data. Speculative decoding accepts as much only where the text is the student's
    greedy reply, and a draft of depth k only after those before it. At most `chunk` rows of (N, V)
    logits are alive at once.
    """
    ids, mask, labels = (
        batch[name].to(model.device) for name in ("input_ids", "attention_mask", "labels")
    )
    head, choices = causal_of(model).get_output_embeddings(), []
    for k, hidden in enumerate(states(model, ids, mask)):
        row, at = targets(labels, k)
        parts = hidden[row, at - 1 - k].split(chunk)  # (n, d)
        table = torch.full_like(labels, -1)
        table[row, at] = torch.cat([head(part).argmax(-1).to(labels.device) for part in parts])
        choices.append(table)
    own, *ahead = choices  # token ids; -1 where there is no prediction
    return [torch.where(draft < 0, -1, (draft == own).to(labels.dtype)) for draft in ahead]
