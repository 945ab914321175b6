"""Benchmark of the similarity pass against a plain forward over the same text on SmolLM2-135M.

Both run the decoder without its head, which neither needs, on the same batches: five rounds in
turn for time (the median of each round's ratio), and a process of its own each for the peak of
resident memory after loading (Linux). The last line is JSON.

    make bench-saturation
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from katlab import models
from katlab.layer_saturation import calibration, similarity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=3072)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", choices=("plain", "measure"), help="print a peak and stop")
    arguments = parser.parse_args()
    model, tokenizer = models.load_smollm2()
    batches = calibration.batches(
        tokenizer, calibration.texts(), arguments.tokens, length=256, size=4
    )
    if arguments.peak:
        Path("/proc/self/clear_refs").write_text("5")  # loading had its own peak; forget it
        (plain if arguments.peak == "plain" else similarity.measure)(model, batches)
        status = Path("/proc/self/status").read_text()
        print(re.search(r"VmHWM:\s+(\d+)", status)[1])
        return
    print(json.dumps(bench(model, batches, arguments)))


@torch.inference_mode()
def plain(model, batches: list[dict]) -> None:
    """The forward pass alone."""
    for batch in batches:
        similarity.decode(model, batch)


def bench(model, batches: list[dict], arguments: argparse.Namespace) -> dict:
    """Ratios of the measuring pass to the plain one in time and in peak memory of the process."""
    times = {"plain": [], "measure": []}
    runs = {"plain": plain, "measure": similarity.measure}
    plain(model, batches[:1])
    for round_ in range(arguments.rounds):
        for name in sorted(runs, reverse=bool(round_ % 2)):
            begin = time.perf_counter()
            runs[name](model, batches)
            times[name].append(time.perf_counter() - begin)
    ratios = [m / p for m, p in zip(times["measure"], times["plain"], strict=True)]
    peaks = {name: peak(name, arguments.tokens) for name in runs}
    return {
        "bench": "saturation",
        "time_ratio": round(statistics.median(ratios), 3),
        "memory_ratio": round(peaks["measure"] / peaks["plain"], 3),
        "tokens": sum(batch["input_ids"].numel() for batch in batches),
        "seconds": {name: [round(v, 2) for v in values] for name, values in times.items()},
        "peak_mb": {name: round(kilobytes / 1024) for name, kilobytes in peaks.items()},
    }


def peak(name: str, tokens: int) -> int:
    """Peak resident kB of a process that loads the model and does one of the two."""
    command = [sys.executable, __file__, "--peak", name, "--tokens", str(tokens)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
