"""The stages in order, found in the checkout: a notebook each, and the package of the same name.

notebooks/NN_<name>.ipynb makes a stage; katlab/<name>/settings.py says whose outputs it reads
(NEEDS, names of other packages) and, with ALWAYS = True, that it reads other runs, which no
fingerprint of its own can cover; katlab/<name>/stage.py does its work.

Usage:  katlab.lab.stages.find("05").needs
"""

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from katlab import UserError
from katlab.lab.profiles import PACKAGE, did_you_mean, section


@dataclass(frozen=True)
class Stage:
    """One stage: its name (notebook stem and folder) and the names of its upstream stages."""

    name: str
    needs: tuple[str, ...] = ()
    always: bool = False

    @property
    def module(self) -> str:
        """The module whose `run(stage)` does the work, '' if the notebook does it itself."""
        name = section(self.name)
        return f"katlab.{name}.stage" if (PACKAGE / name / "stage.py").is_file() else ""


def discover() -> list[Stage]:
    """The stages whose notebooks the project folder has, in order."""
    return [named(stem) for stem in _stems()]


def named(name: str) -> Stage:
    """The stage of exactly this name, as '05_step_srpo', with or without a notebook."""
    own = section(name)
    if not (PACKAGE / own / "settings.py").is_file():
        return Stage(name)
    settings = vars(import_module(f"katlab.{own}.settings"))
    places = {section(stem): stem for stem in _stems()}
    needs = tuple(places.get(need, need) for need in settings["NEEDS"])
    return Stage(name, needs, settings.get("ALWAYS", False))


def _stems() -> list[str]:
    return sorted(path.stem for path in (root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def find(word: str) -> Stage:
    """A stage by its name, its number ('5', '05') or a unique beginning of either part."""
    names = _stems()
    number = f"{word:0>2}_" if word.isdecimal() else word
    hits = [n for n in names if n == word] or [
        n for n in names if n.startswith(number) or section(n).startswith(word)
    ]
    if len(hits) == 1:
        return named(hits[0])
    if hits:
        raise UserError(f"Stage '{word}' could be {' or '.join(hits)}; say which.")
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
    """The folder that holds one folder per run."""
    return root() / "outputs"


def notebook(name: str) -> Path:
    """The notebook of a stage; UserError if the checkout lacks it."""
    path = root() / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        raise UserError(f"There is no notebook {path}; restore it or set KATLAB_ROOT.")
    return path
