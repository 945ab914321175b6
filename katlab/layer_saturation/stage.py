"""Stage 01: measure the parent's layers, plan, write and verify the deeper student (section 2).

metrics = stage.run(stage)
"""

import shutil
from pathlib import Path
from types import SimpleNamespace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import models
from katlab.lab import StageRun, work
from katlab.layer_saturation import calibration, damage, similarity, writer
from katlab.layer_saturation.child import apply_in_memory, compare, verify
from katlab.layer_saturation.plan import LayerPlan, costs, plan


def write_student(
    config: SimpleNamespace,
    parent: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    plan: LayerPlan,
    target: Path,
) -> None:
    """Write the child as a plain folder: streamed from the parent's, else (hub) from memory."""
    if target.exists():
        shutil.rmtree(target)
    source = Path(models.folder_of(config))
    if source.is_dir():
        writer.write(source, target, plan)
        return
    apply_in_memory(parent, plan).save_pretrained(target)
    tokenizer.save_pretrained(target)
    plan.save(target / "layer_plan.json")


@work
def run(stage: StageRun) -> dict[str, float]:
    """Stage 01: measure the parent's layers, plan by the profile, write and verify the student.

    Leaves saturation.csv, damage.csv, angular.csv and layer_plan.json in the stage's folder and the
    student, with its tokenizer, in checkpoints/student. Returns losses in nats and sizes.
    """
    settings = stage.settings
    parent, tokenizer = models.load(stage.config.model)
    batches, held_out = calibration.of_stage(stage, tokenizer)
    read = stage.progress(batches, "what each layer changes")
    report = similarity.measure(parent, read, seed=stage.seed)
    changed = stage.progress(batches, "each layer skipped, each twice")
    costs_of_layers = damage.measure(parent, changed, seed=stage.seed)
    report.save(stage.dir)
    costs_of_layers.to_csv(stage.dir / "damage.csv", index=False)
    student_plan = plan(
        parent.config.num_hidden_layers,
        settings.add,
        choice=settings.choice,
        order=settings.order,
        start=settings.start,
        alpha=settings.alpha,
        chosen=settings.layers,
        table=report.overall.merge(costs_of_layers.query("group == 'all'"), on=["group", "layer"]),
        angular=report.angular,
    )
    student_plan.save(stage.dir / "layer_plan.json")
    target = stage.checkpoints / "student"
    write_student(stage.config.model, parent, tokenizer, student_plan, target)
    reloaded = SimpleNamespace(**{**vars(stage.config.model), "student": str(target)})
    reloaded.gguf_file = ""
    student = models.load(reloaded)[0]
    checks = verify(parent, student, student_plan, held_out)
    sizes = costs(parent.config.to_dict(), student_plan)
    return {
        "parent_loss": checks["parent_loss"],
        "student_loss": checks["child_loss"],
        "predicted_change": checks["predicted_change"],
        **compare(parent, [student], held_out)[0],
        "layers": sizes["child_layers"],
        "parameters": sizes["child_parameters"],
        "lowest_influence": float(report.overall["influence"].min()),
    }
