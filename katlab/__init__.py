"""katlab: train language models that decide when to think (after the KAT-V1 report)."""

__version__ = "0.1.0"


class UserError(Exception):
    """A mistake the user can correct; its message is one sentence that names the remedy."""
