"""Draws gate.png from gate.csv: python outputs/reviews/real-0.5b/gate.py"""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from katlab.lab.display import STYLE

HERE = Path(__file__).parent
CUT = "second cold start, cut off (×)"
PANELS = {
    "first cold start": {"seed 1": "0072b2", "drawn again": "d55e00", "plain GRPO": "8a8a8a"},
    CUT: {"second, adaptthink 2": "d55e00", "second, relative 2": "009e73"},
    "third cold start": {
        "third, adaptthink 2": "0072b2",
        "third, adaptthink 3": "d55e00",
        "third, adaptthink 4": "cc79a7",
        "third, relative 2": "009e73",
    },
}


def main() -> None:
    """Share of rollouts that think by step of Step-SRPO, a panel for each cold start."""
    plt.style.use(STYLE)
    steps = pd.read_csv(HERE / "gate.csv").set_index(["run", "step"])["think_on"]
    figure, panels = plt.subplots(1, 3, figsize=(11.5, 3.7), sharey=True)
    for axes, (title, runs) in zip(panels, PANELS.items(), strict=True):
        for run, color in runs.items():
            share, name = steps[run], run.split(", ")[-1]
            axes.plot(share.index, share, color=f"#{color}", label=name)
            if title == CUT:
                axes.plot(share.index[-1], share.iloc[-1], "x", color=f"#{color}")
        axes.set(title=title, xlabel="step of Step-SRPO", xlim=(0, 37), ylim=(0, 1.04))
        axes.legend(loc="lower right" if title == CUT else "lower left", ncols=1 + (len(runs) > 3))
    panels[0].set_ylabel("share of rollouts that think")
    figure.supxlabel(
        "Qwen2.5-Coder-0.5B, dequantised q4_k_m", x=0.99, ha="right", size=8, color="#8a8a8a"
    )
    figure.savefig(HERE / "gate.png", dpi=80)


if __name__ == "__main__":
    main()
