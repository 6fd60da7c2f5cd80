"""Examples as Hugging Face has them: dicts with `input_ids`, and perhaps `labels` and `attention_mask`."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import torch
from torch.nn import functional as F

#: The label of a token whose loss does not count.
IGNORED = -100
_PADDING = {"input_ids": 0, "attention_mask": 0, "token_type_ids": 0, "labels": IGNORED}


def length(example: Mapping[str, Any]) -> int:
    """The tokens of an example."""
    tokens = example["input_ids"]
    if getattr(tokens, "ndim", 1) != 1 or len(tokens) > 0 and isinstance(tokens[0], Sequence):
        raise ValueError("input_ids must be one-dimensional: an example has no axis for a batch")
    return len(tokens)


def labels(example: Mapping[str, Any]) -> list[int]:
    """The labels of an example: by default its tokens, without padding and what would be predicted from padding."""
    given = example.get("labels")
    if given is not None:
        return [int(label) for label in given]
    tokens = [int(token) for token in example["input_ids"]]
    mask = example.get("attention_mask")
    if mask is None:
        return tokens
    seen = [int(place) != 0 for place in mask]
    return [token if now and before else IGNORED for token, now, before in zip(tokens, seen, [True, *seen])]


def targets(example: Mapping[str, Any]) -> list[int]:
    """The positions of the tokens whose loss counts. The first token has none."""
    return [at for at, label in enumerate(labels(example)) if at > 0 and label != IGNORED]


def content(example: Any) -> bytes:
    """What of a dict with `input_ids` decides about its gradient, as bytes to be hashed; nothing for other examples."""
    if not isinstance(example, Mapping) or "input_ids" not in example:
        return b""
    parts = []
    for key in _PADDING:
        if example.get(key) is not None:
            values = torch.as_tensor(example[key]).cpu().contiguous().numpy()
            kind = "<f8" if values.dtype.kind == "f" else "<i8"
            parts += [f"{key} {values.shape} ".encode(), values.astype(kind).tobytes()]
    return b"".join(parts)


def cut(example: Mapping[str, Any], start: int, end: int) -> dict[str, Any]:
    """The example up to `end`, where only the loss of the tokens `start..end` counts.

    A causal model sees nothing behind its target, so that the rest need not be computed.
    """
    kept = {key: value[:end] for key, value in example.items() if key in _PADDING}
    return {**kept, "labels": [IGNORED] * start + labels(example)[start:end]}


def pad(examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch of examples, filled up on the right to the longest: tensors `[batch, time]`.

    Without `labels` the tokens that `attention_mask` does not hide are the labels. Keys other than `input_ids`, `attention_mask`,
    `token_type_ids` and `labels` are left out.
    """
    longest = max(map(length, examples))
    keys = ["input_ids", "attention_mask", "labels"]
    if any("token_type_ids" in example for example in examples):
        keys.append("token_type_ids")
    batch = {key: torch.full((len(examples), longest), _PADDING[key], dtype=torch.long) for key in keys}
    for row, example in enumerate(examples):
        tokens = length(example)
        given = {"attention_mask": [1] * tokens, "token_type_ids": [0] * tokens, **example}
        given["labels"] = labels(example)
        for key in keys:
            values = torch.as_tensor(given[key])
            if len(values) != tokens:
                raise ValueError(f"{key} has {len(values)} places for {tokens} tokens")
            batch[key][row, :tokens] = values
    return batch


def next_token_loss(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The cross-entropy of each example's tokens, averaged over those whose label is not -100: `[batch]`.

    The model is called with all of the batch but the labels, and returns logits `[batch, time, vocabulary]` or what has
    them as `.logits`. An example in which no token counts has a loss of NaN.
    """
    output = model(**{key: value for key, value in batch.items() if key != "labels"})
    logits = output if isinstance(output, torch.Tensor) else output.logits
    labels = batch["labels"][:, 1:]
    losses = F.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
    )
    return losses.sum(1) / (labels != IGNORED).sum(1)
