"""katlab: train language models that decide when to think (after the KAT-V1 report)."""

import sys

__version__ = "0.1.0"


class UserError(Exception):
    """A mistake the user can correct; its message is one sentence that names the remedy."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows, on red ground: the sentence; where it arose helps nobody."""
        return [str(self)]


if "ipykernel" in sys.modules:  # before a module of ours imports what greets a notebook in red
    import katlab.lab  # noqa: F401
