"""The bar that ``progress=True`` shows."""

from __future__ import annotations

__all__ = ["Bar"]


class Bar:
    """A bar of tqdm, of the kind that suits where it runs: a terminal or a notebook."""

    def __init__(self) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            message = "progress=True needs tqdm: install it, or give a callable(done, total)"
            raise ImportError(message) from error
        self._bar = tqdm(unit_scale=True)

    def __call__(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
