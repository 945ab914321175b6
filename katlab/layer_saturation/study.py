"""One model's whole depth study: saturation, damage, what each start costs, how it recovers.

Report section 2, on the profile's own student and on real weights (SmolLM2-135M-Instruct), with the
report's rule beside its alternatives. The figures are in `katlab.layer_saturation.figures`.

    real = study.smollm2(stage); table = study.variants(real)
"""

from dataclasses import dataclass

import pandas as pd
from transformers import PreTrainedModel

from katlab import models
from katlab.lab import StageRun
from katlab.layer_saturation import calibration, child, similarity
from katlab.layer_saturation import damage as layer_damage
from katlab.layer_saturation import recovery as continued
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


@dataclass
class Study:
    """A model, the text it is judged on, and what was measured."""

    name: str
    model: PreTrainedModel
    train: list[dict]
    held_out: list[dict]
    report: similarity.Saturation
    damage: pd.DataFrame

    @property
    def layers(self) -> pd.DataFrame:
        """One row a layer over all text: similarity, update norms, skip and repeat damage."""
        rows = self.report.overall.merge(self.damage.query("group == 'all'"), on=["group", "layer"])
        return rows.assign(similarity=1 - rows["influence"])

    def plan(self, choice: str = "similarity", order: str = "interleaved", start: str = "copy"):
        """A plan of a quarter more layers by this study's measurements."""
        return plan(
            len(self.layers),
            choice=choice,
            order=order,
            start=start,
            table=self.layers,
            angular=self.report.angular,
        )

    @property
    def kat(self) -> LayerPlan:
        """The report's rule: the most saturated quarter, once each, interleaved, copied."""
        return plan(len(self.layers), preset="kat", table=self.layers)


def of_stage(stage: StageRun) -> Study:
    """The study of the profile's own student: what stage 01 measured and left behind."""
    model, tokenizer = models.load(stage.config.model)
    train, held_out = calibration.of_stage(stage, tokenizer)
    if stage.settings.text == "nano":
        train = calibration.nano_batches(
            tokenizer, stage.settings.recovery_queries, stage.seed, "train"
        )
    report = similarity.Saturation.load(stage.dir)
    damage = pd.read_csv(stage.dir / "damage.csv")
    return Study(stage.profile, model, train, held_out, report, damage)


def smollm2(stage: StageRun) -> Study:
    """The study of SmolLM2-135M-Instruct, its damage on `real_tokens` tokens, the rest on 8 x that.

    Prose, code and sums; the held-out text is from the last fifth of each.
    """
    model, tokenizer = models.load_smollm2()
    tokens, texts = stage.settings.real_tokens, calibration.texts()
    length = max(16, min(64, tokens // len(texts)))

    def cut(tokens: int, **where) -> list[dict]:
        return calibration.batches(tokenizer, texts, tokens, length=length, size=3, **where)

    train, name = cut(8 * tokens), "SmolLM2-135M"
    read = stage.progress(train, f"{name}: what each layer changes")
    report = similarity.measure(model, read, seed=stage.seed)
    changed = stage.progress(cut(tokens), f"{name}: each layer skipped, each twice")
    damage = layer_damage.measure(model, changed, seed=stage.seed)
    return Study(name, model, train, cut(tokens, offset=0.8), report, damage)


def variants(study: Study, stage: StageRun) -> pd.DataFrame:
    """The report's rule and its alternatives before training, against the parent on held-out text.

    A row a variant, with the columns of `child.compare`.
    """
    work = stage.progress(VARIANTS, f"{study.name}: what each start costs")
    children = (
        child.apply_in_memory(study.model, study.plan(choice, order, start), share=True)
        for _, choice, order, start in work
    )
    rows = pd.DataFrame(child.compare(study.model, children, study.held_out))
    rows.insert(0, "variant", [label for label, *_ in VARIANTS])
    rows.insert(0, "model", study.name)
    return rows


def recovery(study: Study, stage: StageRun, steps: int, rate: float) -> pd.DataFrame:
    """Held-out loss of copy, zero and half-step while each trains `steps` steps at `rate`."""
    bar = stage.bar(steps * len(RECOVERING), f"{study.name}: training goes on", ("loss",))

    def tell(start: str, step: int, loss: float) -> None:
        stage.log(model=study.name, start=start, loss=loss)
        bar.to(RECOVERING.index(start) * steps + step)

    curves = continued.recovery(
        study.model,
        {start: study.plan(start=start) for start in RECOVERING},
        study.train,
        study.held_out,
        steps=steps,
        scheme=stage.settings.recovery_scheme,
        rate=rate,
        every=max(1, steps // 6),
        seed=stage.seed,
        tell=tell,
    )
    bar.close()
    return curves.assign(model=study.name)
