"""The payload of a collector's commits (format-spec/collect.md), and where a collection goes on."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Iterator

import torch
from torch import nn

from . import _examples
from ._errors import ResumeError
from ._plan import Item, Settings

VERSION = 1
#: Digits of an example's tag.
TAG = 8
#: The JSON of a list of parameters up to which it is recorded, besides its digest.
MAX_LISTS = 128 << 10
EMPTY_DIGEST = "0" * 64
#: The bytes of what a record calls the weights, and what divides the caller's word from the digest of the examples.
MAX_WEIGHTS = 255
EXAMPLES = " examples:"
#: Elements of a model of which all are hashed. Of larger models it is every n-th of each parameter.
MAX_HASHED = 1 << 24


def parameters_digest(parameters: list) -> str:
    """The digest of pairs of name and shape."""
    text = "".join(f"{name} {'x'.join(map(str, shape))}\n" for name, shape in parameters)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def recorded(parameters: list) -> list[dict[str, Any]]:
    """What a commit records of the parameters."""
    one = {"checkpoint": "", "digest": parameters_digest(parameters)}
    if len(json.dumps(parameters)) <= MAX_LISTS:
        one["list"] = parameters
    return [one]


def weights_digest(model: nn.Module) -> str:
    """A digest of names, types, shapes and elements of all parameters of a model: of all elements up to `MAX_HASHED`,
    otherwise of every n-th of each parameter, beginning with its first, where n is the number of all over `MAX_HASHED`,
    rounded up."""
    named = list(model.named_parameters())
    stride = max(1, -(-sum(parameter.numel() for _, parameter in named) // MAX_HASHED))
    digest = hashlib.sha256()
    for name, parameter in named:
        digest.update(f"{name} {parameter.dtype} {list(parameter.shape)} {stride}\n".encode())
        # A clone, since a view of one element keeps a stride that cannot be viewed as bytes.
        elements = parameter.detach().reshape(-1)[::stride].clone(memory_format=torch.contiguous_format)
        digest.update(elements.cpu().view(torch.uint8).numpy().tobytes())
    return "parameters:" + digest.hexdigest()


def _span_text(span) -> str:
    return "whole" if span is None else f"{span[0]}..{span[1]}"


def extended(digest: str, item: Item) -> tuple[str, str]:
    """The digest of the input up to an example, from that before it; and the example's tag."""
    own = hashlib.sha256()
    fields = [item.id, str(item.tokens).encode(), item.source.encode(), item.metadata]
    for part in fields + [_span_text(span).encode() for span in item.spans]:
        own.update(str(len(part)).encode() + b":" + part)
    own = own.hexdigest()
    return hashlib.sha256((digest + own).encode()).hexdigest(), own[:TAG]


def extended_contents(contents: str, item: Item) -> str:
    """The digest of what examples hold, up to one, from that before it. Examples of unknown types do not change it."""
    content = _examples.content(item.example)
    return hashlib.sha256(contents.encode() + content).hexdigest() if content else contents


class Record:
    """The examples between two positions of the input, and those among them without rows."""

    def __init__(self, name: str, settings: Settings, weights: str, parameters: list):
        self.name = name
        self.settings = settings
        self.weights = weights
        self.parameters = recorded(parameters)
        self.start = self.end = self.rows = 0
        self.digest_before = self.digest = self.contents = EMPTY_DIGEST
        self.tags: list[str] = []
        self.failures: list[dict[str, Any]] = []

    def begin(self, position: int, digest: str, contents: str) -> None:
        """Makes it the record of what comes from a position on."""
        self.contents = contents
        self.start = self.end = position
        self.digest_before = self.digest = digest
        self.rows, self.tags, self.failures = 0, [], []

    def push(self, item: Item) -> None:
        """Adds an example of the input."""
        self.digest, tag = extended(self.digest, item)
        self.contents = extended_contents(self.contents, item)
        self.tags.append(tag)
        self.end += 1

    def fail(self, position: int, id: bytes, reason: str, detail: str) -> dict[str, Any]:
        """Adds an example without rows."""
        try:
            named = {"id": id.decode()}
        except UnicodeDecodeError:
            named = {"id_hex": id.hex()}
        detail = detail if len(detail) <= 200 else detail[:200] + "…"
        failure = {"position": position, **named, "reason": reason, "detail": detail}
        self.failures.append(failure)
        return failure

    def size(self) -> int:
        """The bytes of tags and failures, about."""
        return TAG * len(self.tags) + sum(400 + 2 * len(str(failure)) for failure in self.failures)

    def to_payload(self) -> bytes:
        return json.dumps(
            {
                "gradix_collect": VERSION,
                "name": self.name,
                "start": self.start,
                "end": self.end,
                "rows": self.rows,
                "digest_before": self.digest_before,
                "digest": self.digest,
                "tags": "".join(self.tags),
                "settings": self.settings.to_json(),
                "weights": self.weights + EXAMPLES + self.contents,
                "parameters": self.parameters,
                "failures": self.failures,
            },
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()


def parse(payload: bytes | None) -> dict[str, Any] | None:
    """The record in a payload; None if it is something else."""
    try:
        record = json.loads(payload)
    except (ValueError, TypeError):
        return None
    if not isinstance(record, dict) or "gradix_collect" not in record:
        return None
    if record["gradix_collect"] != VERSION:
        raise ResumeError(f"a commit was written by a collector of version {record['gradix_collect']!r}; {VERSION} is read")
    return record


def find(writer, name: str) -> tuple[list[dict[str, Any]], bool]:
    """The records of a collection, the earliest first; and whether earlier ones may be gone."""
    records: list[dict[str, Any]] = []
    # A detached writer has parts in place of commits.
    last = writer.generation if hasattr(writer, "generation") else writer.finished
    for generation in range(last, 0, -1):
        payload = writer.payload(generation)
        if payload is None:
            return records[::-1], True
        record = parse(payload)
        if record is None or record["name"] != name:
            continue
        if records and records[-1]["start"] != record["end"]:
            raise ResumeError(f"the record of generation {generation} ends at {record['end']}, where no later one goes on")
        records.append(record)
        if record["start"] == 0:
            break
    return records[::-1], False


def split_weights(record: dict[str, Any]) -> tuple[str, str]:
    """The word for the weights, and the digest of what the examples hold; the latter is empty if another collector wrote
    the record."""
    weights, mark, contents = record["weights"].rpartition(EXAMPLES)
    return (weights, contents) if mark else (contents, "")


def check(last: dict[str, Any], given: Record) -> None:
    """Whether the batches of another run would be made as those of the record, and from such a model."""
    pairs = [(key, last["settings"].get(key), value) for key, value in given.settings.to_json().items()]
    weights, _ = split_weights(last)
    pairs += [("observe", last["settings"].get("observe"), None), ("weights", weights, given.weights)]
    for key, recorded, now in pairs:
        if recorded != now:
            raise ResumeError(f"the setting {key} was {recorded!r} when the collection began, and is {now!r} now")
    before, after = last["parameters"], given.parameters
    if [one["checkpoint"] for one in before] != [""]:
        raise ResumeError("the rows are of several checkpoints")
    if before[0]["digest"] != after[0]["digest"]:
        raise ResumeError("the parameters are others than those of the rows: " + _difference(before[0], after[0]))


def _difference(rows: dict[str, Any], given: dict[str, Any]) -> str:
    rows_list, given_list = rows.get("list"), given.get("list")
    if rows_list is None or given_list is None:
        return f"their digest is {given['digest']}, and {rows['digest']} there"
    had, has = {name: shape for name, shape in rows_list}, {name: shape for name, shape in given_list}
    for name in [*had, *has]:
        if had.get(name) != has.get(name):
            return f"{name!r} has the shape {has.get(name)} in the model, and {had.get(name)} there"
    return "their order is another one"


def read_up_to(records: list[dict[str, Any]], items: Iterator[Item]) -> tuple[int, str, str]:
    """Reads the input up to the end of the last record and compares it. Returns position and digests."""
    digest, contents, position = EMPTY_DIGEST, EMPTY_DIGEST, 0
    for record in records:
        while position < record["end"]:
            item = next(items, None)
            if item is None:
                raise ResumeError(f"the input ends at position {position}, and {records[-1]['end']} examples were collected")
            digest, tag = extended(digest, item)
            contents = extended_contents(contents, item)
            at = position - record["start"]
            if at >= 0 and record["tags"][TAG * at : TAG * (at + 1)] != tag:
                raise ResumeError(f"the input has changed at position {position}: example {item.id!r} is not what it was")
            position += 1
            if position == record["start"] and digest != record["digest_before"]:
                raise ResumeError(f"the input has changed before position {position}")
        if digest != record["digest"]:
            raise ResumeError(f"the input has changed between positions {record['start']} and {record['end']}")
        if split_weights(record)[1] != contents:
            raise ResumeError(f"tokens, labels or masks of examples before position {record['end']} are not what they were")
    return position, digest, contents
