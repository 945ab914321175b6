"""Stage 01: measure the parent's layers, plan, write and verify the deeper student (section 2).

metrics = stage.run(stage)
"""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

from huggingface_hub import snapshot_download

from katlab import UserError, lab, models, weights
from katlab.layer_saturation import calibration, study, verify, writer
from katlab.layer_saturation.plan import LayerPlan
from katlab.layer_saturation.safetensors_layout import read_config, sizes_of, source_files


@lab.work
def run(stage: lab.StageRun) -> dict[str, float]:
    """Measure the profile's student and SmolLM2, plan, write and verify the deeper student.

    Leaves the tables of `study.Study` in the stage's folder (SmolLM2's in a folder of their own),
    layer_plan.json, costs.json and the student, with its tokenizer, in checkpoints/student. A
    table that is there already is not measured again. Returns losses in nats and sizes. Under
    torchrun rank 0 does the work and the others wait.
    """
    (figures,) = stage.kept("figures.jsonl", lambda: [_work(stage)])
    return figures


def _work(stage: lab.StageRun) -> dict[str, float]:
    config, settings = stage.config.model, stage.settings
    source = parent_folder(config)
    parent, tokenizer = models.load(config)
    texts = calibration.of_stage(stage, tokenizer)
    own = study.of_stage(stage, parent, texts)
    keys = ("add", "choice", "order", "start", "alpha")
    plan = own.plan(chosen=settings.layers, **{key: getattr(settings, key) for key in keys})
    stage.write("layer_plan.json", asdict(plan))
    target = stage.checkpoints / "student"
    write_student(source, target, plan)
    expected = verify.Expected(parent, plan, texts.held_out)
    del parent  # the student may need its room
    checks = expected.met_by(models.load_from(target, config)[0])
    sizes = sizes_of(source, plan)
    stage.write("costs.json", sizes)
    if settings.real_tokens:
        study.smollm2(stage)
    return {
        **checks,
        "layers": sizes["child_layers"],
        "parameters": sizes["child_parameters"],
        "lowest_influence": float(own.layers["influence"].min()),
    }


def parent_folder(config: SimpleNamespace) -> Path:
    """The folder of the student's original files, from the hub where it is a hub id.

    However the parent is loaded to be measured, the deeper student is made of these. Raises
    UserError, before anything is loaded, where they are quantised or no safetensors.
    """
    folder = Path(weights.folder_of(config))
    if not folder.is_dir():
        wanted = ["*.safetensors", "LICENSE*", *(f"*{suffix}" for suffix in writer.CARRIED)]
        try:
            folder = Path(snapshot_download(str(folder), allow_patterns=wanted))
        except OSError as error:
            raise UserError(
                f"{config.student} could not be fetched ({str(error).splitlines()[0]}); give a"
                " folder with config.json and safetensors as model.student."
            ) from error
    read_config(folder)
    source_files(folder)
    return folder


def write_student(source: Path, target: Path, plan: LayerPlan) -> None:
    """Write the child as a plain folder, unless an earlier attempt did, and check every tensor."""
    if not target.exists():
        writer.write(source, target, plan)
    verify.files(source, target, plan)
