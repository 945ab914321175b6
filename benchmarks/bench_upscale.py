"""Benchmark of the streaming writer against mergekit's passthrough and against cp.

A checkpoint of at least 4 GB is generated in Qwen2.5-32B's layout (64 layers, 17 shards, bfloat16;
a quarter of the width), upscaled to 80 layers by the report's rule, three times each and in turn:
by `katlab upscale apply`, by `mergekit-yaml --out-shard-size 1B` (whole processes), and the output
copied by `cp -r`. Then every tensor is compared with mergekit's. mergekit gets an environment of
its own under build/, made when missing. The last line is JSON.

    make bench-upscale
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / "build" / "mergekit-env"
# torch by version, so that a machine without a GPU gets no CUDA packages; transformers 5.0, since
# later ones refuse the configuration that mergekit 0.1.5 makes (80 layers, 64 layer_types).
PACKAGES = ("torch==2.13.0", "mergekit==0.1.5", "transformers==5.0.0")
GENERATE = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import save_file
folder = Path(sys.argv[1]); hidden, inner, kv, vocab = 1280, 6912, 256, 152064
torch.manual_seed(0); noise = torch.randn(vocab * hidden + 10**6).mul_(0.02).bfloat16()
shapes = {"model.embed_tokens.weight": (vocab, hidden)}
for i in range(64):
    a, m = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
    shapes |= {f"{a}.{p}_proj.bias": (n,) for p, n in (("q", hidden), ("k", kv), ("v", kv))}
    shapes |= {f"{a}.{p}_proj.weight": (n, hidden)
               for p, n in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden))}
    shapes |= {f"{m}.gate_proj.weight": (inner, hidden), f"{m}.up_proj.weight": (inner, hidden),
               f"{m}.down_proj.weight": (hidden, inner)}
    shapes |= {f"model.layers.{i}.{n}_layernorm.weight": (hidden,)
               for n in ("input", "post_attention")}
shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
size = {n: 2 * torch.Size(s).numel() for n, s in shapes.items()}
total, shards, filled = sum(size.values()), [[]], 0
for name in shapes:
    if shards[-1] and filled + size[name] > total / 16.2:
        shards.append([]); filled = 0
    shards[-1].append(name); filled += size[name]
where = {}
for k, names in enumerate(shards, 1):
    file = f"model-{k:05d}-of-{len(shards):05d}.safetensors"
    where |= dict.fromkeys(names, file)
    begin = {n: 997 * (list(shapes).index(n) + 1) % 10**6 for n in names}
    save_file({n: noise[begin[n] : begin[n] + size[n] // 2].view(shapes[n]).clone()
               for n in names}, folder / file, metadata={"format": "pt"})
(folder / "model.safetensors.index.json").write_text(
    json.dumps({"metadata": {"total_size": total}, "weight_map": where}))
config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": hidden,
          "intermediate_size": inner, "num_hidden_layers": 64, "num_attention_heads": 10,
          "num_key_value_heads": 2, "vocab_size": vocab, "max_window_layers": 64,
          "hidden_act": "silu", "initializer_range": 0.02, "max_position_embeddings": 32768,
          "rms_norm_eps": 1e-5, "rope_theta": 1e6, "sliding_window": 131072,
          "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_sliding_window": False}
(folder / "config.json").write_text(json.dumps(config))
"""
COMPARE = """
import sys
from pathlib import Path
import torch
from safetensors import safe_open
def tensors(folder):
    return {n: f for f in Path(folder).glob("*.safetensors") for n in safe_open(f, "pt").keys()}
ours, theirs = tensors(sys.argv[1]), tensors(sys.argv[2])
assert ours.keys() == theirs.keys(), sorted(ours.keys() ^ theirs.keys())[:4]
for name in ours:
    a, b = (safe_open(t[name], "pt").get_tensor(name) for t in (ours, theirs))
    assert a.dtype == b.dtype and torch.equal(a, b), name
print(len(ours))
"""


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident GB of a whole process; this one stays small, so its own are low."""
    subprocess.run(["sync"], check=True)
    with open(ROOT / "build" / "bench_upscale.log", "ab") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
    if status:
        sys.exit(f"{' '.join(command[:4])} failed; see build/bench_upscale.log.")
    return seconds, usage.ru_maxrss * 1024 / 1e9


def ensure_mergekit() -> str:
    """Path of mergekit-yaml in an environment of its own, which is made when missing."""
    command = ENVIRONMENT / "bin" / "mergekit-yaml"
    if not command.is_file():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        pip = [ENVIRONMENT / "bin" / "pip", "install", "-q", *PACKAGES]
        subprocess.run(pip, check=True)
    return str(command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--start", default="copy", help="copy, zero, half-step or alpha")
    arguments = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    work = ROOT / "build" / "bench_upscale"
    shutil.rmtree(work, ignore_errors=True)
    (work / "parent").mkdir(parents=True)
    try:
        mergekit = ensure_mergekit()
        subprocess.run([sys.executable, "-c", GENERATE, work / "parent"], check=True)
        print(json.dumps(bench(work, mergekit, arguments.rounds, arguments.start)))
    finally:
        shutil.rmtree(work)


def bench(work: Path, mergekit: str, rounds: int, start: str) -> dict:
    """Time the three in turn and compare the outputs."""
    ours, theirs, copied = work / "ours", work / "theirs", work / "copied"
    katlab = str(Path(sys.executable).with_name("katlab"))
    apply = [katlab, "upscale", "apply", str(work / "parent"), str(ours)]
    apply += ["--layers", "40-55", "--start", start]
    times = {"katlab": [], "mergekit": [], "cp": []}
    peak = {"katlab": 0.0, "mergekit": 0.0}
    for _ in range(rounds):
        for folder in (ours, theirs, copied):
            shutil.rmtree(folder, ignore_errors=True)
        seconds, resident = timed(apply)
        times["katlab"].append(seconds)
        peak["katlab"] = max(peak["katlab"], resident)
        recipe = str(ours / "mergekit.yaml")
        seconds, resident = timed([mergekit, recipe, str(theirs), "--out-shard-size", "1B"])
        times["mergekit"].append(seconds)
        peak["mergekit"] = max(peak["mergekit"], resident)
        times["cp"].append(timed(["cp", "-r", str(ours), str(copied)])[0])
    compared = subprocess.run(
        [sys.executable, "-c", COMPARE, ours, theirs], check=True, capture_output=True, text=True
    )
    seconds = {name: statistics.median(values) for name, values in times.items()}
    size = sum(f.stat().st_size for f in ours.glob("*.safetensors"))
    return {
        "bench": "upscale",
        "peak_rss_gb": round(peak["katlab"], 3),
        "speedup_vs_mergekit": round(seconds["mergekit"] / seconds["katlab"], 2),
        "fraction_of_cp": round(seconds["cp"] / seconds["katlab"], 2),
        "start": start,
        "output_gb": round(size / 1e9, 2),
        "seconds": {name: [round(v, 1) for v in values] for name, values in times.items()},
        "mergekit_peak_rss_gb": round(peak["mergekit"], 2),
        "tensors_equal": int(compared.stdout),
    }


if __name__ == "__main__":
    main()
