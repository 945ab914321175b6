"""One model's whole depth study: saturation, damage, what each start costs, how it recovers.

Report section 2, on the profile's own student and on real weights (SmolLM2-135M-Instruct), with the
report's rule beside its alternatives. The figures are in `katlab.depth_figures`.

    real = depth_study.smollm2(stage); table = depth_study.variants(real)
"""

from dataclasses import dataclass

import pandas as pd
from transformers import PreTrainedModel

from katlab import calibration, continue_training, layer_damage, models, saturation, upscaling
from katlab.lab import Stage
from katlab.layer_plan import LayerPlan, plan

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
    report: saturation.Saturation
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


def of_stage(stage: Stage) -> Study:
    """The study of the profile's own student, on the stage's calibration text."""
    model, tokenizer = models.load(stage.config.model)
    batches, held_out = calibration.of_stage(stage, tokenizer)
    train = batches
    if stage.settings.text == "nano":
        train = calibration.nano_batches(
            tokenizer, stage.settings.recovery_queries, stage.seed, "train"
        )
    return Study(stage.profile, model, train, held_out, *_measured(stage, model, batches, batches))


def _measured(stage: Stage, model, read: list[dict], changed: list[dict], name: str = ""):
    """Similarity over the batches `read`, damage over `changed`, both with their progress."""
    name = name or stage.profile
    report = saturation.measure(
        model, stage.progress(read, f"{name}: what each layer changes"), seed=stage.seed
    )
    damage = layer_damage.measure(
        model, stage.progress(changed, f"{name}: each layer skipped, each twice"), seed=stage.seed
    )
    return report, damage


def smollm2(stage: Stage) -> Study:
    """The study of SmolLM2-135M-Instruct, its damage on `real_tokens` tokens, the rest on 8 x that.

    Prose, code and sums; the held-out text is from the last fifth of each.
    """
    model, tokenizer = models.load_smollm2()
    tokens, texts = stage.settings.real_tokens, calibration.texts()
    length = max(16, min(64, tokens // len(texts)))

    def cut(tokens: int, **where) -> list[dict]:
        return calibration.batches(tokenizer, texts, tokens, length=length, size=3, **where)

    train, name = cut(8 * tokens), "SmolLM2-135M"
    measured = _measured(stage, model, train, cut(tokens), name)
    return Study(name, model, train, cut(tokens, offset=0.8), *measured)


def variants(study: Study, stage: Stage) -> pd.DataFrame:
    """The report's rule and its alternatives before training, against the parent on held-out text.

    loss_change in nats; kl of the logits, KL(parent, child) in nats; top1_agreement, the share of
    tokens on which both have the same first choice.
    """
    before, rows = upscaling.mean_loss(study.model, study.held_out), []
    work = stage.progress(VARIANTS, f"{study.name}: what each start costs")
    for label, choice, order, start in work:
        made = study.plan(choice, order, start)
        child = upscaling.apply_in_memory(study.model, made, share=True)
        change = upscaling.mean_loss(child, study.held_out) - before
        told = upscaling.compare(study.model, child, study.held_out)
        rows.append({"model": study.name, "variant": label, "loss_change": change, **told})
    return pd.DataFrame(rows)


def recovery(study: Study, stage: Stage, steps: int) -> pd.DataFrame:
    """Held-out loss of copy, zero and half-step while each trains for `steps` steps."""
    settings = stage.settings
    bar = stage.bar(steps * len(RECOVERING), f"{study.name}: training goes on", ("loss",))

    def tell(start: str, step: int, loss: float) -> None:
        stage.log(model=study.name, start=start, loss=loss)
        bar.to(RECOVERING.index(start) * steps + step)

    curves = continue_training.recovery(
        study.model,
        {start: study.plan(start=start) for start in RECOVERING},
        study.train,
        study.held_out,
        steps=steps,
        scheme=settings.recovery_scheme,
        rate=settings.recovery_rate,
        every=max(1, steps // 6),
        seed=stage.seed,
        tell=tell,
    )
    bar.close()
    return curves.assign(model=study.name)
