"""From an iterable of examples to committed rows, and from an output of the model to a query."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from . import _examples, _record
from ._errors import CollectError, GradientError, ResumeError, TapError
from ._plan import Item, Piece, Settings, Span, Window
from ._sketch import RowSketcher
from ._taps import CONDITIONAL_ROWS, Taps

#: The length of tags and failures from which on a record is committed: a payload has at most four times that.
FULL_RECORD = 1 << 18


@dataclass
class Collected:
    """What a run of a collector did."""

    #: Rows that were committed by this run.
    rows: int
    #: Examples that were read by this run, without those that earlier runs had collected.
    examples: int
    #: The position in the input at which it went on.
    resumed_at: int
    #: Examples without rows: position, id, reason and detail, as in the commits' payloads.
    failures: list[dict[str, Any]]
    #: Seconds in forwards and backwards, in sketches, and in the writer.
    seconds: dict[str, float]


class Collector:
    """Sketches of the gradients of a model's loss, one row an example.

    - `model`: any `torch.nn.Module`. Its parameters are not changed; call `model.eval()` before, since dropout makes
      rows random.
    - `spec`: a `gradix.SketchSpec`, of the kinds `rapid_grad` and `kronecker`.
    - `loss(model, batch)`: the losses of the examples, `[batch]`, or of their tokens, `[batch, ...]`, which are summed.
      Default: `next_token_loss`.
    - `collate(examples)`: the batch for a list of examples. Default: `pad`. Tensors in it, also those in a dict, list or
      tuple, are moved to the model's device.
    - `select`, `lora_only`, `frozen`, `convention`, `rename`: which parameters, and their names; see `Taps`. Under a
      `kronecker` spec the default is all matrices, without biases and norms.
    - `rows`: `"losses"`, where the row of a span is the gradient of the loss of its tokens, which takes a place of its
      own in a batch; or `"positions"`, where it is the terms of its positions in the gradient of the whole loss, all from
      one backward.
    - `batch_rows`, `batch_tokens`: the maximum number of rows, and of tokens with padding, of a batch.
    - `max_tokens`: longer examples have no rows, and are recorded as failures.
    - `window_rows`: how many rows are read before they are batched by length.
    - `length(example)`, `cut(example, start, end)`: the tokens of an example, and the example with the loss of some of
      them. Defaults: for dicts with `input_ids`. Examples of another type have a length of 1 by default.
    - `loss_scale`: the loss is multiplied by it for the backward, and gradients divided. Needed by float16 models.
    - `conditional`: layers may be left out by a forward; their gradient is zero then. Needs `batch_rows=1`.
    - `on_failure`: `"skip"` records an example that fails and goes on, `"raise"` stops.
    - `weights`: what you call the model's weights, for example a digest of their file; recorded, and compared at a resume.
      Default: at the start of a run, a digest of the parameters; of models with more than 2^24 elements, of every n-th of
      each parameter, so that about 2^24 are hashed.
    - `check`: compare the first batch with the gradients of autograd: their sum, and the last example's, in the first
      batch that has several. It finds a parameter that is used elsewhere than in its module, a forward that is random,
      and one that mixes examples or has them on another axis than the first.
    - `kernel`: see `RowSketcher`.
    """

    def __init__(
        self,
        model: nn.Module,
        spec,
        *,
        loss: Callable[[nn.Module, Any], torch.Tensor] | None = None,
        collate: Callable[[list], Any] | None = None,
        select: str | Iterable[str] | Callable[[str], bool] | None = None,
        lora_only: bool = False,
        frozen: bool = False,
        convention: str = "torch",
        rename: Callable[[str], str] | None = None,
        rows: str = "losses",
        batch_rows: int = 32,
        batch_tokens: int = 1 << 14,
        max_tokens: int | None = None,
        window_rows: int = 1024,
        length: Callable[[Any], int] | None = None,
        cut: Callable[[Any, int, int], Any] | None = None,
        loss_scale: float = 1.0,
        conditional: bool = False,
        on_failure: str = "skip",
        weights: str = "",
        check: bool = True,
        kernel: str | None = None,
    ):
        if rows not in ("losses", "positions"):
            raise ValueError(f"rows is {rows!r}; 'losses' and 'positions' are possible")
        if on_failure not in ("skip", "raise"):
            raise ValueError(f"on_failure is {on_failure!r}; 'skip' and 'raise' are possible")
        if min(batch_rows, batch_tokens, window_rows) < 1 or window_rows > 65536:
            raise ValueError("batch_rows, batch_tokens and window_rows are at least 1, window_rows at most 65,536")
        if conditional and batch_rows > 1:
            raise TapError(CONDITIONAL_ROWS)
        if len(weights.encode()) > _record.MAX_WEIGHTS - len(_record.EXAMPLES) - len(_record.EMPTY_DIGEST):
            raise ValueError("weights has more than 181 bytes")
        self.model = model
        self.spec = spec
        self.sketcher = RowSketcher(spec, kernel)
        self.taps = Taps(
            model,
            select=select,
            lora_only=lora_only,
            frozen=frozen,
            inputs_first=self.sketcher.kind == "kronecker",
            convention=convention,
            rename=rename,
            conditional=conditional,
        )
        for parameter in self.taps.parameters:
            self.sketcher.check(parameter)
        self.settings = Settings(rows, window_rows, batch_rows, batch_tokens, max_tokens)
        self._loss = loss or _examples.next_token_loss
        self._collate = collate or _examples.pad
        self._is_text = loss is None and collate is None
        self._length = length or _length
        self._cut = cut or _examples.cut
        self._loss_scale = loss_scale
        self._on_failure = on_failure
        self._weights = weights
        # Rows of the largest batch that was compared with autograd, of which two say all: see Taps.check.
        self._checked = 0 if check else 2
        self.seconds = {"model": 0.0, "sketch": 0.0, "writer": 0.0}

    @property
    def parameters(self) -> list[tuple[str, list[int]]]:
        """Names and shapes of what is sketched, in its order."""
        return [(parameter.name, parameter.shape) for parameter in self.taps.parameters]

    def sketch(self, examples: Sequence[Any]) -> np.ndarray:
        """The sketches of the gradients of the examples' losses: `[examples, dims]`, float32, for a query.

        Raises `GradientError` for an example whose loss or gradient is not finite.
        """
        return self._all(list(examples), [[None]] * len(examples), "losses")

    def tokens(self, example: Any, positions: Sequence[int] | None = None) -> tuple[list[int], np.ndarray]:
        """Positions and sketches `[tokens, dims]` of the losses of single tokens of an example, a query for each.

        Default: all tokens whose loss counts, for dicts with `input_ids`.
        """
        if positions is None:
            positions = _examples.targets(example)
        spans = [(at, at + 1) for at in positions]
        return list(positions), self._all([example], [spans], "losses")

    def positions(self, example: Any, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """Sketches `[spans, dims]` of the terms of spans of positions in the gradient of the example's whole loss."""
        return self._all([example], [list(spans)], "positions")

    def _all(self, examples, spans, rows) -> np.ndarray:
        settings = Settings(rows, 65536, self.settings.batch_rows, self.settings.batch_tokens, None)
        window = Window()
        for example, of_one in zip(examples, spans):
            window.push(Item(example, b"", self._length(example), "", b"", of_one), settings, self._is_empty)
        for place, (_, detail) in window.faults.items():
            raise GradientError(place, detail)
        outcomes = self._solve(window, settings)
        values = [np.zeros((0, self.sketcher.dims), np.float32)]
        for piece, outcome in zip(window.pieces, outcomes):
            if isinstance(outcome, tuple):
                raise GradientError(piece.place, outcome[1])
            values.append(outcome)
        return np.concatenate(values)

    def run(
        self,
        examples: Iterable[Any],
        writer,
        *,
        ids: Any = "id",
        sources: Any = None,
        metadata: Any = None,
        spans: Any = None,
        commit_every: int = 8192,
        name: str = "",
        total: int | None = None,
        progress: bool | Callable[[int, int | None], None] = False,
    ) -> Collected:
        """Appends a row for each example, or for each of its spans, in the order of the input, and commits.

        - `writer`: a `gradix.Writer`, a `gradix.DetachedWriter`, which makes a part of each commit, or a `gradix.Index`, whose
          writer is then opened for the run.
        - `ids`, `sources`, `metadata`, `spans`: of each example, as a key of it, a function of it, or an iterable beside
          the input. Spans are lists of pairs of start and end, or None for the whole.
        - `commit_every`: rows after which a complete window is committed.
        - `name`: several collections of one index differ in it.
        - `progress`: True for tqdm's bar, or a function of examples done and their total.

        A run that was interrupted is started again with the same input and settings: it reads the input up to the last
        commit, compares it with what the commits record, and goes on behind it. The rows are those of an uninterrupted
        run: on the CPU of one machine bit for bit, on other devices up to rounding, since there the order of sums differs
        from run to run, and a lack of memory halves batches. An input, model or setting that is not the same is a
        `ResumeError`. Of an example ids, lengths, sources, metadata and spans are compared, and of dicts with
        `input_ids` also these, `labels` and masks.

        Where `gc` has taken the records of the commits, all of the input is read first, and examples behind the last window
        of which the index has one are kept in memory: the run goes on there.
        """
        if not hasattr(writer, "append_batch"):
            with writer.writer() as own:
                return self.run(
                    examples, own, ids=ids, sources=sources, metadata=metadata, spans=spans,
                    commit_every=commit_every, name=name, total=total, progress=progress,
                )
        if total is None and hasattr(examples, "__len__"):
            total = len(examples)
        items = _items(examples, self._length, ids, sources, metadata, spans)
        with _Progress(progress, total) as report:
            return _Run(self, items, writer, name, commit_every, report).all()

    def _is_empty(self, item: Item) -> bool:
        if not self._is_text or item.spans != [None]:
            return False
        return not _examples.targets(item.example)

    def _solve(self, window: Window, settings: Settings) -> list[Any]:
        """For each piece the sketches of its rows `[spans, dims]`, or reason and detail of a failure."""
        outcomes: list[Any] = [None] * len(window.pieces)
        for batch in window.batches(settings):
            for ordinal, outcome in zip(batch, self._solve_batch(window, batch, settings)):
                outcomes[ordinal] = outcome
        return outcomes

    def _solve_batch(self, window: Window, batch: list[int], settings: Settings) -> list[Any]:
        pieces = [window.pieces[ordinal] for ordinal in batch]
        try:
            return self._attempt(window, pieces, settings)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            detail = str(error)
        # Outside of the handler, which would keep the failed batch's tensors.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(batch) == 1:
            return [("out_of_memory", detail)]
        half = len(batch) // 2
        return [
            *self._solve_batch(window, batch[:half], settings),
            *self._solve_batch(window, batch[half:], settings),
        ]

    def _attempt(self, window: Window, pieces: list[Piece], settings: Settings) -> list[Any]:
        began = time.perf_counter()
        examples = []
        for piece in pieces:
            example, span = window.items[piece.place].example, piece.spans[0]
            is_whole = settings.rows == "positions" or span is None
            examples.append(example if is_whole else self._cut(example, *span))
        batch = _moved(self._collate(examples), self.taps.device)
        with torch.enable_grad(), self.taps.record(len(pieces), self._loss_scale) as record:
            losses = self._losses(batch, len(pieces))
            (losses.sum() * self._loss_scale).backward()
        factors = record.factors()
        finite = torch.isfinite(losses.detach()).tolist()
        if self._checked < min(2, len(pieces)) and all(finite):
            if self.taps.check(lambda: self._losses(batch, len(pieces)), factors):
                self._checked = min(2, len(pieces))
        self.seconds["model"] += time.perf_counter() - began
        began = time.perf_counter()
        counts = [1] * len(pieces)
        if settings.rows == "positions":
            counts = [len(piece.spans) for piece in pieces]
            spans = [[span or (0, piece.tokens) for span in piece.spans] for piece in pieces]
            factors = factors.by_spans(spans)
        values, wrong = self.sketcher.sketch(factors)
        self.seconds["sketch"] += time.perf_counter() - began
        outcomes, row = [], 0
        for is_finite, count in zip(finite, counts):
            bad = next((wrong[at] for at in range(row, row + count) if at in wrong), None)
            if not is_finite:
                outcomes.append(("not_finite", "the loss is not finite"))
            elif bad is not None:
                outcomes.append(("sketch", bad))
            else:
                outcomes.append(values[row : row + count])
            row += count
        return outcomes

    def _losses(self, batch, rows: int) -> torch.Tensor:
        losses = self._loss(self.model, batch)
        if losses.ndim == 0 or losses.shape[0] != rows:
            raise TapError(f"the loss has the shape {list(losses.shape)}; [{rows}] is expected, one for each example")
        if not losses.requires_grad:
            raise TapError(
                "the loss does not depend on a layer whose parameters are selected; under gradient checkpointing, "
                "use_reentrant=False helps"
            )
        return losses.flatten(1).sum(1) if losses.ndim > 1 else losses


class _Run:
    """One run of a collector: what is appended, and what is committed with it."""

    def __init__(self, collector: Collector, items: Iterator[Item], writer, name: str, commit_every: int, report):
        self.collector = collector
        self.items = items
        self.writer = writer
        self.commit_every = commit_every
        self.report = report
        weights = collector._weights or _record.weights_digest(collector.model)
        self.record = _record.Record(name, collector.settings, weights, collector.parameters)
        # While rows are appended or committed, the writer may have some that no record knows of.
        self.state = "complete"
        self.done = Collected(0, 0, 0, [], collector.seconds)

    def all(self) -> Collected:
        collector = self.collector
        if self.writer.schema.spec != collector.spec:
            raise ResumeError("the spec of the index is not that of the collector")
        position, digest, contents, read = self._start()
        self.record.begin(position, digest, contents)
        self.done.resumed_at = position
        self.report(position)
        first = iter(read)
        try:
            while True:
                window = self._window(first)
                if not window.items:
                    break
                outcomes = collector._solve(window, collector.settings)
                self._append(window, outcomes)
                if self.record.rows >= self.commit_every or self.record.size() >= FULL_RECORD:
                    self._commit()
                self.report(self.record.end)
            self._commit()
        except BaseException:
            try:
                # Complete windows are not lost by what came behind them, Ctrl-C included.
                if self.state == "complete":
                    self._commit()
            finally:
                # The caller's writer would otherwise commit rows without a record of them.
                if self.state != "complete":
                    self.writer.abort()
            raise
        return self.done

    def _start(self) -> tuple[int, str, str, list[Item]]:
        records, unknown = _record.find(self.writer, self.record.name)
        if records:
            _record.check(records[-1], self.record)
            return (*_record.read_up_to(records, self.items), [])
        if not unknown:
            return 0, _record.EMPTY_DIGEST, _record.EMPTY_DIGEST, []
        if not hasattr(self.writer, "commit"):
            raise ResumeError("parts of the detached writer's folder are gone, and with them what is known of the collection")
        # Commits of a collection may be gone: it ended with the last window of which the index has an example. Examples of
        # windows before it may have been deleted, so that the whole input is read to find it.
        place = position, digest, contents = 0, _record.EMPTY_DIGEST, _record.EMPTY_DIGEST
        behind: list[Item] = []
        while True:
            window = self._window(iter(()))
            if not window.items:
                return (*place, behind)
            for item in window.items:
                digest, _ = _record.extended(digest, item)
                contents = _record.extended_contents(contents, item)
            position += len(window.items)
            behind += window.items
            if any(self.writer.contains(item.id) for item in window.items):
                place, behind = (position, digest, contents), []

    def _window(self, read: Iterator[Item]) -> Window:
        window = Window()
        while not window.is_complete(self.collector.settings):
            item = next(read, None) or next(self.items, None)
            if item is None:
                break
            window.push(item, self.collector.settings, self.collector._is_empty)
        return window

    def _append(self, window: Window, outcomes: list[Any]) -> None:
        faults = dict(window.faults)
        rows: list[list[np.ndarray]] = [[] for _ in window.items]
        for piece, outcome in zip(window.pieces, outcomes):
            if isinstance(outcome, tuple):
                faults.setdefault(piece.place, outcome)
            else:
                rows[piece.place].append(outcome)
        sound = [place for place in range(len(window.items)) if place not in faults]
        self._raise_if_fatal(window, faults)
        began = time.perf_counter()
        self.state = "appending"
        faults.update(_append(self.writer, window, sound, rows))
        self.collector.seconds["writer"] += time.perf_counter() - began
        self._raise_if_fatal(window, faults)
        for place, item in enumerate(window.items):
            position = self.record.end
            self.record.push(item)
            if place in faults:
                self.done.failures.append(self.record.fail(position, item.id, *faults[place]))
            else:
                self.record.rows += len(item.spans)
        self.done.examples += len(window.items)
        self.state = "complete"

    def _raise_if_fatal(self, window, faults) -> None:
        if self.collector._on_failure == "raise":
            for place, (reason, detail) in sorted(faults.items()):
                item = window.items[place]
                raise CollectError(f"example {item.id!r} at position {self.record.end + place}: {reason}: {detail}")

    def _commit(self) -> None:
        if self.record.end == self.record.start:
            return
        began = time.perf_counter()
        self.state = "committing"
        commit = self.writer.commit if hasattr(self.writer, "commit") else self.writer.finish
        commit(self.record.to_payload())
        self.collector.seconds["writer"] += time.perf_counter() - began
        self.done.rows += self.record.rows
        self.record.begin(self.record.end, self.record.digest, self.record.contents)
        self.state = "complete"


def _append(writer, window: Window, sound: list[int], rows: list[list[np.ndarray]]) -> dict[int, tuple[str, str]]:
    """Appends what is sound, and returns which examples the index refused for what they are themselves."""
    from gradix import AlreadyExistsError, InvalidInputError, Row

    items = [window.items[place] for place in sound]
    if items and all(len(item.spans) == 1 for item in items):
        try:
            writer.append_batch(
                [item.id for item in items],
                np.concatenate([rows[place][0] for place in sound]),
                sources=[item.source or None for item in items],
                spans=[item.spans[0] for item in items],
                metadata=[item.metadata for item in items],
            )
            return {}
        except (AlreadyExistsError, InvalidInputError):
            # None was appended: one by one, to find those that are refused.
            pass
    refused = {}
    for place, item in zip(sound, items):
        try:
            source, values = item.source or None, np.concatenate(rows[place])
            writer.append_rows(
                item.id,
                [
                    Row(value, span=span, source=source, metadata=item.metadata)
                    for value, span in zip(values, item.spans)
                ],
            )
        except (AlreadyExistsError, InvalidInputError) as error:
            refused[place] = ("refused", str(error))
    return refused


class _Progress:
    """Reports examples done: by tqdm, to a function, or not at all."""

    def __init__(self, progress, total: int | None):
        self.bar, self.call, self.total = None, None, total
        if progress is True:
            try:
                from tqdm.auto import tqdm
            except ImportError as error:
                raise ImportError("progress=True needs tqdm: install it, or give a callable(done, total)") from error
            self.bar = tqdm(total=total, unit="examples")
        elif callable(progress):
            self.call = progress

    def __enter__(self):
        return self

    def __call__(self, done: int) -> None:
        if self.bar is not None:
            self.bar.update(done - self.bar.n)
        if self.call is not None:
            self.call(done, self.total)

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()


def _items(examples, length, ids, sources, metadata, spans) -> Iterator[Item]:
    of_id, of_source, of_metadata = (_attribute(given) for given in (ids, sources, metadata))
    of_spans = _attribute(spans) if spans is not None else lambda example: [None]
    for example in examples:
        own_id = of_id(example)
        source = of_source(example)
        about = of_metadata(example)
        yield Item(
            example,
            own_id if isinstance(own_id, bytes) else str(own_id).encode(),
            length(example),
            "" if source is None else str(source),
            b"" if about is None else about if isinstance(about, bytes) else str(about).encode(),
            [None if span is None else (int(span[0]), int(span[1])) for span in of_spans(example)],
        )


def _attribute(given) -> Callable[[Any], Any]:
    """A function of an example, from None, a key, a function, or an iterable beside the input."""
    if given is None:
        return lambda example: None
    if isinstance(given, str):
        return lambda example: example[given]
    if callable(given):
        return given
    beside = iter(given)

    def following(example):
        try:
            return next(beside)
        except StopIteration:
            raise ValueError("there are fewer ids, sources, metadata or spans than examples") from None

    return following


def _length(example) -> int:
    return _examples.length(example) if isinstance(example, Mapping) and "input_ids" in example else 1


def _moved(batch, device):
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: _moved(value, device) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(_moved(value, device) for value in batch)
    return batch


def _is_out_of_memory(error: RuntimeError) -> bool:
    kind = getattr(torch.cuda, "OutOfMemoryError", ())
    return isinstance(error, kind) or "out of memory" in str(error)
