"""What the collector refuses."""

from __future__ import annotations


class TapError(ValueError):
    """A model, or a use of its layers, whose gradients cannot be recorded."""


class GradientError(ValueError):
    """A gradient that cannot be sketched, with the ordinal of its row in the batch."""

    def __init__(self, row: int, reason: str):
        super().__init__(f"row {row} of the batch: {reason}")
        self.row = row
        self.reason = reason


class ResumeError(ValueError):
    """An index whose commits do not fit the input, the model or the settings of a collector."""


class CollectError(RuntimeError):
    """An example failed, and the collector was told to stop at failures."""
