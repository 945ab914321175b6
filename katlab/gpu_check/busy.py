"""How busy the GPU is while a stage trains: what nvidia-smi says, twice a second."""

import subprocess
import threading
from statistics import mean

import torch

from katlab.lab import StageRun


class Busy:
    """Watches the GPU; `share` is its mean busy time, 0 to 1, between first and last step.

    So that starting and saving are no part of it. None on a CPU, without nvidia-smi, and where
    there was but one step.
    """

    def __init__(self, stage: StageRun):
        self.stage = stage
        self.share: float | None = None
        self.seen: list[tuple[int, float]] = []  # steps done, per cent
        self.over = threading.Event()
        self.watch = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Busy":
        self.watch.start()
        return self

    def _watch(self) -> None:
        if not torch.cuda.is_available():
            return
        asked = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        which = [f"--id=GPU-{torch.cuda.get_device_properties(0).uuid}"]
        while not self.over.wait(0.5):
            try:
                told = subprocess.run([*asked, *which], capture_output=True, text=True).stdout
            except FileNotFoundError:
                return
            told = told.strip()
            if not told.isdecimal():  # a container may hide which GPU it is
                which = []
            done = sum("step_time" in row for row in self.stage.metrics())
            if told.isdecimal():
                self.seen.append((done, float(told)))

    def __exit__(self, *_) -> None:
        self.over.set()
        self.watch.join()
        within = [busy for done, busy in self.seen if 0 < done < self.stage.settings.steps]
        self.share = round(mean(within) / 100, 3) if within else None
