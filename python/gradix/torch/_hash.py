"""The integers of format-spec/sketch.md and kronecker.md as operations on int64 tensors, modulo 2^32."""

from __future__ import annotations

import hashlib

import torch

WORD = 0xFFFFFFFF


def keys(prefix: bytes, seed: int, name: str) -> list[int]:
    """The sixteen keys of a parameter."""
    digest = hashlib.sha512(prefix + seed.to_bytes(8, "little") + name.encode("utf-8")).digest()
    return [int.from_bytes(digest[at : at + 4], "little") for at in range(0, 64, 4)]


def mix(x: torch.Tensor) -> torch.Tensor:
    """The 32-bit finaliser of sketch.md. A product that leaves 64 bits keeps its lower 32, which are all that count."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & WORD
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & WORD
    return x ^ (x >> 16)
