"""The stages in order: which notebook, which module trains it, and what it needs.

A new stage is one line here, one notebook of the same name, one module, one test file.

Usage:  katlab.lab.stages.find("05").needs
"""

import os
from dataclasses import dataclass
from pathlib import Path

from katlab import UserError
from katlab.lab.profiles import did_you_mean


@dataclass(frozen=True)
class Stage:
    """One stage: its name (notebook stem and folder), its module's name and its upstream stages.

    `always` marks one that reads other runs, which no fingerprint of its own can cover.
    """

    name: str
    module: str = ""
    needs: tuple[str, ...] = ()
    always: bool = False


STAGES = (
    Stage("00_start_here"),
    Stage("01_layer_saturation", "layer_saturation"),
    Stage("02_dual_regime_data", "dual_regime_data", ("01_layer_saturation",)),
    Stage(
        "03_mtp_distillation", "mtp_distillation", ("01_layer_saturation", "02_dual_regime_data")
    ),
    Stage("04_cold_start", "cold_start", ("02_dual_regime_data", "03_mtp_distillation")),
    Stage("05_step_srpo", "step_srpo", ("04_cold_start",)),
    Stage("06_evaluation", "evaluation", ("03_mtp_distillation", "04_cold_start", "05_step_srpo")),
    Stage("07_case_studies", "case_studies", ("05_step_srpo",)),
    Stage("08_scaling_plan", "scaling_plan"),
    Stage("09_compare_runs", always=True),
)


def discover() -> list[Stage]:
    """The stages whose notebooks the project folder has, in order; new ones need nothing."""
    known = {stage.name: stage for stage in STAGES}
    stems = sorted(path.stem for path in (root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return [known.get(stem, Stage(stem)) for stem in stems]


def find(word: str) -> Stage:
    """A stage by its name, its number ('5', '05') or a unique beginning of either part."""
    stages = discover()
    names = [stage.name for stage in stages]
    number = f"{word:0>2}_" if word.isdecimal() else word
    hits = [s for s in stages if s.name == word] or [
        s for s in stages if s.name.startswith(number) or s.name.partition("_")[2].startswith(word)
    ]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise UserError(f"Stage '{word}' could be {' or '.join(s.name for s in hits)}; say which.")
    raise UserError(f"There is no stage '{word}'; {did_you_mean(word, names)}")


def root() -> Path:
    """The project folder: KATLAB_ROOT, else upward from here, else the checkout of the package.

    It is the folder that has a pyproject.toml and notebooks/; outputs/ lies in it, wherever a
    notebook or a command was started.
    """
    if "KATLAB_ROOT" in os.environ:
        return Path(os.environ["KATLAB_ROOT"]).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents, Path(__file__).parents[2]):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise UserError(
        "No project folder above here has a pyproject.toml and notebooks/; "
        "change into the checkout or set KATLAB_ROOT to it."
    )


def outputs() -> Path:
    """The folder that holds one folder a run."""
    return root() / "outputs"


def notebook(name: str) -> Path:
    """The notebook of a stage; UserError if the checkout lacks it."""
    path = root() / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        raise UserError(f"There is no notebook {path}; restore it or set KATLAB_ROOT.")
    return path
