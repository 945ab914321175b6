"""Where a student comes from and under which licence: read off what is on this machine.

origin.base("Qwen/Qwen2.5-1.5B-Instruct")    # name, license, and its id on the Hub if it has one
"""

from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import ModelCard, try_to_load_from_cache
from huggingface_hub.utils import HFValidationError, validate_repo_id

from katlab.lab.profiles import PACKAGE

MADE_HERE = "data_samples/nano"  # trained by `katlab nano build` from random weights
UNKNOWN = "unknown"  # an identifier of the Hub's own


class Base(NamedTuple):
    """A model: as its profile names it, its licence (an identifier of the Hub), its id there."""

    name: str
    license: str
    hub_id: str | None


def base(student: str) -> Base:
    """Licence and id of a profile's model: from its card, or its package's metadata."""
    name = Path(student)
    if student.startswith("package:"):
        return Base(student, _of_package(student.removeprefix("package:")), None)
    if made_here(student):
        return Base(f"{MADE_HERE}/{name.name}", _of_package("katlab"), None)
    for folder in (name, PACKAGE.parent / name):
        if folder.is_dir():
            return Base(name.name, _of_card(folder / "README.md"), None)
    try:
        validate_repo_id(student)
    except HFValidationError:
        return Base(name.name, UNKNOWN, None)
    cached = try_to_load_from_cache(student, "README.md")
    return Base(student, _of_card(Path(cached)) if isinstance(cached, str) else UNKNOWN, student)


def made_here(student: str) -> bool:
    """Whether a model is one of the nano world's own."""
    return (PACKAGE.parent / student).is_relative_to(PACKAGE.parent / MADE_HERE)


def _of_card(path: Path) -> str:
    data = ModelCard.load(path).data if path.is_file() else None
    return (getattr(data, "license", None) or UNKNOWN).lower()


def _of_package(package: str) -> str:
    names = metadata.packages_distributions().get(package, [package])
    try:
        head = metadata.metadata(names[0]).json
    except metadata.PackageNotFoundError:
        return UNKNOWN
    said = head.get("license_expression") or head.get("license") or UNKNOWN
    return str(said).lower().replace(" ", "-")
