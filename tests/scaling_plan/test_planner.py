"""The planner: exact counts, the flop counter, TRL's formula, and published runs."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import compute_flops_per_token

from katlab import UserError, lab, sizes
from katlab.scaling_plan import planner, steps

QWEN32B, KAT = planner.architecture("target-40b")  # 64 layers, and the child's 80
FULL, ZERO3, LORA, QLORA = (planner.SCHEMES[i] for i in (0, 1, 4, 5))
PLAN = SimpleNamespace(gpu="H100-80", gpus=16, sequence=4096, tokens=20e9, mfu=0.4)
SMALL = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, vocab_size=101)  # fmt: skip


def test_the_40b_on_the_meta_device_is_the_reports():
    model = planner.instantiate(KAT)
    assert sum(p.numel() for p in model.parameters()) == 40_565_560_320
    assert sizes.parameters(KAT)["total"] == 40_565_560_320
    config = model.config
    assert (config.num_hidden_layers, len(model.model.layers)) == (80, 80)
    assert (config.num_attention_heads, config.num_key_value_heads) == (40, 8)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "kind", [{"model_type": "qwen2"}, {"model_type": "qwen3", "head_dim": 32},
             {"model_type": "llama"}, {"model_type": "llama", "attention_bias": True}],
)  # fmt: skip
def test_counts_equal_the_models(kind, tied):
    config = SMALL | kind | {"tie_word_embeddings": tied}
    model = planner.instantiate(config)
    assert sizes.parameters(config)["total"] == sum(p.numel() for p in model.parameters())


def test_flops_equal_the_flop_counters_and_trls():
    config = SMALL | {"model_type": "qwen2", "tie_word_embeddings": False}
    made = AutoConfig.for_model(**config, attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(made)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 32, dtype=torch.long), use_cache=False)
    assert counter.get_total_flops() == pytest.approx(
        32 * sizes.flops_per_token(config, 32), rel=0.01
    )
    for sequence in (512, 4096):
        assert compute_flops_per_token(made, sequence) == 3 * sizes.flops_per_token(
            config, sequence
        )


def test_states_of_the_40b_by_hand():
    assert planner.state_gib(KAT, FULL, 8) == pytest.approx(75.6, abs=0.05)
    assert planner.state_gib(KAT, ZERO3, 16) == pytest.approx(42.5, abs=0.05)
    assert planner.state_gib(KAT, LORA, 8) == pytest.approx(9.4, abs=0.05)
    assert planner.state_gib(KAT, QLORA, 8) == planner.state_gib(KAT, QLORA, 1)
    assert planner.state_gib(KAT, QLORA, 1) == pytest.approx(21.6, abs=0.1)
    assert sizes.kv_bytes_per_token(KAT) == 320 * 1024


def test_zero3_is_deepspeeds_example():
    """DeepSpeed's memory documentation: 2,851M parameters, 8 GPUs: 5.97 GiB of states, 6.09 GB
    with its largest layer of 32M at 4 bytes."""
    states = 2851e6 * ZERO3.bytes_per_parameter / 8 / planner.GIB
    assert states + 4 * 32e6 / planner.GIB == pytest.approx(6.09, abs=0.02)


def test_s1_32b_runs_out_of_memory_where_it_did():
    """simplescaling/s1 issues 13 and 106: full tuning of Qwen2.5-32B fails on 8 H100-80, works on
    16 at 20k tokens and not at 32k (logits were held in full)."""
    memory = planner.GPUS["H100-80"].memory
    fits = {
        (gpus, tokens): planner.training_gib(QWEN32B, FULL, gpus, tokens, full_logits=True)
        for gpus, tokens in ((8, 20_000), (16, 20_000), (16, 32_768))
    }
    assert fits[8, 20_000] > memory > fits[16, 20_000]
    assert fits[16, 32_768] > memory


def test_quantised_adapters_of_40b_need_what_is_published():
    """Unsloth's requirements: 40B QLoRA 30 GB, LoRA 96 GB on one GPU."""
    for scheme, published in ((QLORA, 30e9), (LORA, 96e9)):
        needed = planner.training_gib(KAT, scheme, 1, 2048) * planner.GIB
        assert needed == pytest.approx(published, rel=0.15)


@pytest.mark.parametrize(
    ("config", "scheme", "sequence", "flops", "published"),
    [
        # NeMo Automodel: Qwen2.5-32B LoRA, 8 x H100, 301 TFLOP/s and 2,250 tokens/s per GPU
        (QWEN32B, LORA, 4096, 301e12, 2250),
        # llm-foundry: MPT-30B, 8 x H100, MFU 38.1 %, 2,002 tokens/s per GPU; two MLP matrices of
        # 4 x 7168 are counted as three of 8/3
        (dict(model_type="llama", hidden_size=7168, intermediate_size=19115, num_hidden_layers=48,
              num_attention_heads=64, num_key_value_heads=64, vocab_size=50432,
              tie_word_embeddings=True), FULL, 2048, 0.381 * 989e12, 2002),
        # Automodel: Llama-3-70B, 64 x H100, 8k, 389 TFLOP/s and 867 tokens/s per GPU
        (dict(model_type="llama", hidden_size=8192, intermediate_size=28672, num_hidden_layers=80,
              num_attention_heads=64, num_key_value_heads=8, vocab_size=128256,
              tie_word_embeddings=False), FULL, 8192, 389e12, 867),
    ],
    ids=["automodel-32b-lora", "mpt-30b", "llama3-70b"],
)  # fmt: skip
def test_published_throughput_within_15_percent(config, scheme, sequence, flops, published):
    gpu = dataclasses.replace(planner.GPUS["H100-80"], peak=flops)
    rate = planner.tokens_per_second(config, scheme, gpu, sequence, mfu=1.0)
    assert rate == pytest.approx(published, rel=0.15)


@pytest.mark.parametrize(
    ("scheme", "tokens", "seconds"),
    [
        (FULL, 8192, 0.24),  # 4 passes x 30 layers x 2.0 ms: 0.08 s of FLOPs hide behind it
        (LORA, 8192, 0.336),
        (FULL, 65536, 0.6073),  # 3 x 1.222e9 FLOPs x 65,536 / (0.4 x 989e12)
    ],
)
def test_a_small_step_takes_what_its_launches_take(scheme, tokens, seconds):
    shape = planner.architecture("real-0.5b")[1]
    found = steps.step_seconds(shape, scheme, 989e12, tokens, 512, 0.4)
    assert found == pytest.approx(seconds, rel=0.01)


def test_stage_1_takes_3600_gpu_hours():
    figures = planner.row("40B", KAT, PLAN)
    assert figures["tokens per second and GPU"] == pytest.approx(1530, rel=0.01)
    assert figures["GPU hours"] == pytest.approx(3630, rel=0.01)


def test_deeper_is_larger_and_leaves_less_room():
    table = planner.by_depth(QWEN32B, range(64, 97, 8), PLAN).set_index("layers")
    assert table.parameters[80] == 40_565_560_320
    assert (table.diff().drop(columns="sequences").iloc[1:] > 0).all().all()
    assert table.sequences.is_monotonic_decreasing
    assert planner.by_depth(
        QWEN32B, [96], SimpleNamespace(**{**vars(PLAN), "gpus": 8})
    ).sequences[0] == 0  # fmt: skip


def test_profiles_are_read():
    assert (QWEN32B["num_hidden_layers"], KAT["num_hidden_layers"]) == (64, 80)
    assert sizes.parameters(QWEN32B)["total"] == 32_763_876_352
    smol, deeper = planner.architecture("smol-135m")
    assert sizes.parameters(smol)["total"] == 134_515_008
    assert deeper["num_hidden_layers"] == 37
    told = planner.table("target-40b")
    assert "40,565,560,320" in told and "MFU 40%" in told and "ssumption" not in told
    assert all(line in " ".join(told.split()) for line in planner.ASSUMPTIONS)
    assert max(map(len, told.splitlines())) <= 80
    assert list(planner.rows(["smol-135m", "target-40b"]).index) == ["smol-135m", "target-40b"]


def test_mistakes():
    with pytest.raises(UserError, match="qwen2, qwen3 or llama"):
        sizes.parameters(KAT | {"model_type": "gpt2"})
    with pytest.raises(UserError, match="H100-80"):
        lab.load_profile("nano", {"scaling_plan.gpu": "TPU"})
    for name in planner.GPUS:
        assert lab.load_profile("nano", {"scaling_plan.gpu": name}).scaling_plan.gpu == name
