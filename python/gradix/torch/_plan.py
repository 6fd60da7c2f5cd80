"""Windows of the input and their batches: a function of the input alone, as of `gradix::burn::collect`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

Span = "tuple[int, int] | None"


@dataclass(frozen=True)
class Settings:
    """What decides which examples share a batch, and so the last bits of the rows."""

    #: `losses` or `positions`.
    rows: str
    window_rows: int
    batch_rows: int
    batch_tokens: int
    max_tokens: int | None

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass
class Item:
    """An example of the input, with what the index records of it."""

    example: Any
    id: bytes
    tokens: int
    source: str
    metadata: bytes
    #: A row for each: None for the whole, or start and end.
    spans: list[Span]


@dataclass
class Piece:
    """What has one place in a batch: one span of an example for losses, all of them for positions."""

    #: The example's place in the window.
    place: int
    spans: list[Span]
    tokens: int


@dataclass
class Window:
    """Consecutive examples of the input, which are batched and committed together."""

    items: list[Item] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    #: Examples of which nothing is computed: place, reason, detail.
    faults: dict[int, tuple[str, str]] = field(default_factory=dict)
    rows: int = 0

    def push(self, item: Item, settings: Settings, is_empty: Callable[[Item], bool]) -> None:
        place = len(self.items)
        self.items.append(item)
        if settings.max_tokens is not None and item.tokens > settings.max_tokens:
            self.faults[place] = ("too_long", f"{item.tokens} tokens; at most {settings.max_tokens} are allowed")
            return
        for span in item.spans:
            if span is not None and not 0 <= span[0] < span[1] <= item.tokens:
                self.faults[place] = ("error", f"the span {span[0]}..{span[1]} is not in its {item.tokens} tokens")
                return
        if not item.spans or is_empty(item):
            self.faults[place] = ("empty", "there is nothing to predict" if item.spans else "there are no spans")
            return
        self.rows += len(item.spans)
        if settings.rows == "positions":
            self.pieces.append(Piece(place, item.spans, item.tokens))
            return
        for span in item.spans:
            self.pieces.append(Piece(place, [span], item.tokens if span is None else span[1]))

    def is_complete(self, settings: Settings) -> bool:
        return self.rows + len(self.faults) >= settings.window_rows

    def batches(self, settings: Settings) -> list[list[int]]:
        """Ordinals of pieces, the longest first."""
        order = sorted(range(len(self.pieces)), key=lambda ordinal: -self.pieces[ordinal].tokens)
        batches: list[list[int]] = []
        for ordinal in order:
            if batches:
                last = batches[-1]
                padded = self.pieces[last[0]].tokens * (len(last) + 1)
                if len(last) < settings.batch_rows and padded <= settings.batch_tokens:
                    last.append(ordinal)
                    continue
            batches.append([ordinal])
        return batches
