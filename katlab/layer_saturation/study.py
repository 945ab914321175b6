"""One model's whole depth study: saturation, damage, what each start costs, how it recovers.

Report section 2, on the profile's own student and on real weights (SmolLM2-135M-Instruct), with the
report's rule beside its alternatives. Stage 01 measures, its notebook loads and draws
(`layer_saturation.figures`).

    own, real = study.load(stage); real.plan(choice="evenly").duplicated
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from katlab import models, speed
from katlab.lab import StageRun
from katlab.lab.rows import replace
from katlab.layer_saturation import calibration, child, similarity
from katlab.layer_saturation import damage as layer_damage
from katlab.layer_saturation import recovery as continued
from katlab.layer_saturation.passes import decoder_layers
from katlab.layer_saturation.plan import LayerPlan, plan

# (label, choice, order, start); the first is the report's own rule
VARIANTS = (
    ("copy (the report's rule)", "similarity", "interleaved", "copy"),
    ("alpha 0.25", "similarity", "interleaved", "alpha"),
    ("half-step", "similarity", "interleaved", "half-step"),
    ("zero", "similarity", "interleaved", "zero"),
    ("copy, by repeat damage", "repeat-damage", "interleaved", "copy"),
    ("copy, a run, stacked", "run", "stacked", "copy"),
    ("copy, evenly spaced", "evenly", "interleaved", "copy"),
)
RECOVERING = ("copy", "zero", "half-step")
SMOLLM2 = "SmolLM2-135M"


@dataclass
class Study:
    """The tables of one model.

    layers: one row per layer over all text: similarity, update norms, skip and repeat damage.
    groups: the same measures by kind of text (`Saturation.layers`), without damage.
    angular: (L+1, L+1) angular distances between depths.
    starts: one row per variant, the columns of `Reference.against`; empty before it is measured.
    recovery: columns start, step, loss; empty where no child was trained.
    """

    name: str
    layers: pd.DataFrame
    groups: pd.DataFrame
    angular: np.ndarray
    starts: pd.DataFrame
    recovery: pd.DataFrame

    @classmethod
    def load(cls, folder: Path, name: str) -> Self:
        """The study whose tables lie in `folder`."""
        report = similarity.Saturation.load(folder)
        damage = pd.read_csv(folder / "damage.csv").query("group == 'all'")
        layers = report.overall.merge(damage, on=["group", "layer"])
        layers["similarity"] = 1 - layers["influence"]
        starts, recovery = (
            pd.read_csv(path) if path.is_file() else pd.DataFrame()
            for path in (folder / "starts.csv", folder / "recovery.csv")
        )
        return cls(name, layers, report.layers, report.angular, starts, recovery)

    def plan(self, **how) -> LayerPlan:
        """`plan.plan` by this study's measurements."""
        return plan(len(self.layers), table=self.layers, angular=self.angular, **how)

    @property
    def kat(self) -> LayerPlan:
        """The report's rule: the most saturated quarter, once each, interleaved, copied."""
        return self.plan(start="copy")


def load(stage: StageRun) -> list[Study]:
    """What `of_stage` and `smollm2` left in the stage's folder: the student's study, SmolLM2's."""
    found = [Study.load(stage.dir, _name(stage))]
    if (stage.dir / SMOLLM2).is_dir():
        found.append(Study.load(stage.dir / SMOLLM2, SMOLLM2))
    return found


def of_stage(stage: StageRun, model: PreTrainedModel, texts: calibration.Texts) -> Study:
    """Measure the profile's own student into the stage's folder.

    A quantised student's children are not trained, since packed weights cannot be.
    """
    settings = stage.settings
    steps = 0 if getattr(model, "is_quantized", False) else settings.recovery_steps
    if steps:
        child.require_trainable(model)
    return _measure(stage, stage.dir, _name(stage), model, texts, steps, settings.recovery_rate)


def _name(stage: StageRun) -> str:
    """The profile's name, also where the profile is a TOML file somewhere."""
    return Path(stage.profile).name.removesuffix(".toml")


def smollm2(stage: StageRun) -> Study:
    """Measure SmolLM2-135M-Instruct into a folder of its own.

    Its damage on `real_tokens` tokens of prose, code and sums, the rest on 8 times as many; the
    held-out text is from the last fifth of each.
    """
    model, tokenizer = models.load_smollm2()
    settings, texts = stage.settings, calibration.texts()
    length = max(16, min(64, settings.real_tokens // len(texts)))
    cut = partial(calibration.batches, tokenizer, texts, length=length, size=3)
    read, some = (cut(times * settings.real_tokens) for times in (8, 1))
    cuts = calibration.Texts(read, some, read, cut(settings.real_tokens, offset=0.8))
    steps, rate = settings.real_recovery_steps, settings.real_recovery_rate
    return _measure(stage, stage.dir / SMOLLM2, SMOLLM2, model, cuts, steps, rate)


def _measure(
    stage: StageRun,
    folder: Path,
    name: str,
    model: PreTrainedModel,
    texts: calibration.Texts,
    steps: int,
    rate: float,
) -> Study:
    """Measure the tables that an earlier attempt did not leave in `folder`."""
    folder.mkdir(exist_ok=True)
    if not (folder / "saturation.csv").is_file():
        read = stage.progress(texts.layers, f"{name}: influence by layer")
        similarity.measure(model, read, seed=stage.seed).save(folder)
    if not (folder / "damage.csv").is_file():
        total = len(texts.damage) * len(decoder_layers(model))
        bar = stage.bar(total, f"{name}: damage by layer")
        damage = layer_damage.measure(model, texts.damage, seed=stage.seed, tell=bar.to)
        bar.close()
        _write(damage, folder / "damage.csv")
    study = Study.load(folder, name)
    if study.starts.empty:
        reference, rows = child.Reference(model, texts.held_out), []
        for label, choice, order, start in stage.progress(VARIANTS, f"{name}: cost of starts"):
            variant = study.plan(choice=choice, order=order, start=start)
            with child.upscaled(model, variant) as other:
                rows.append({"variant": label, **reference.against(other)})
        _write(pd.DataFrame(rows), folder / "starts.csv")
    if study.recovery.empty and steps:
        _write(_recovery(stage, study, model, texts, steps, rate), folder / "recovery.csv")
    return Study.load(folder, name)


def _recovery(
    stage: StageRun,
    study: Study,
    model: PreTrainedModel,
    texts: calibration.Texts,
    steps: int,
    rate: float,
) -> pd.DataFrame:
    """Held-out loss of copy, zero and half-step while each trains `steps` steps at `rate`."""
    bar = stage.bar(steps * len(RECOVERING), f"{study.name}: training goes on", {"loss": "loss"})

    def tell(start: str, step: int, loss: float) -> None:
        stage.log(model=study.name, start=start, loss=loss)
        bar.to(RECOVERING.index(start) * steps + step)

    curves = continued.recovery(
        model,
        {start: study.plan(start=start) for start in RECOVERING},
        texts.train,
        texts.held_out,
        steps=steps,
        scheme=stage.settings.recovery_scheme,
        rate=rate,
        every=max(1, steps // 6),
        seed=stage.seed,
        tell=tell,
        timed=partial(speed.trained, stage, study.name),
    )
    bar.close()
    return curves


def _write(table: pd.DataFrame, path: Path) -> None:
    replace(path, table.to_csv(index=False))
