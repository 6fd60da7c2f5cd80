#!/usr/bin/env python3
"""The logits of a Llama-architecture model, computed with numpy in double precision, independently of src/.

    reference.py MODEL OUT [TOKENS]

MODEL is a GGUF file (read with the package gguf) or a folder with config.json and model.safetensors (read here, F32).
OUT gets, for each of a few lists of token ids, the eight highest logits of each of its last four positions and the
sum of squares of all logits of these positions. `llm --check OUT` compares. Needs numpy, and gguf for a GGUF file.
TOKENS are lists of token ids as JSON; without it, fixed pseudo-random ones.
"""

import json
import sys
from pathlib import Path

import numpy as np


class Folder:
    """config.json and model.safetensors; rotary pairs are (i, i + half)."""

    def __init__(self, path):
        config = json.loads((path / "config.json").read_text())
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.key_heads, self.base = config["num_key_value_heads"], config["rope_theta"]
        self.epsilon = config["rms_norm_eps"]
        data = (path / "model.safetensors").read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        self.tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            self.tensors[name] = np.frombuffer(data[start:end], "<f4").reshape(entry["shape"]).astype(np.float64)

    def embedding(self):
        return self.tensors["model.embed_tokens.weight"]

    def head(self):
        return self.tensors.get("lm_head.weight", self.embedding())

    def norm(self):
        return self.tensors["model.norm.weight"]

    def layer(self, n, name):
        names = {
            "norm 1": "input_layernorm", "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
            "o": "self_attn.o_proj", "norm 2": "post_attention_layernorm", "gate": "mlp.gate_proj",
            "up": "mlp.up_proj", "down": "mlp.down_proj",
        }
        return self.tensors[f"model.layers.{n}.{names[name]}.weight"]

    def pairs(self, half):
        return np.arange(half), np.arange(half) + half


class Gguf:
    """A GGUF file; rotary pairs are (2 i, 2 i + 1)."""

    def __init__(self, path):
        from gguf import GGUFReader
        from gguf.quants import dequantize

        reader = GGUFReader(path)
        value = lambda name: reader.fields[name].contents()
        self.layers, self.heads = value("llama.block_count"), value("llama.attention.head_count")
        self.key_heads, self.base = value("llama.attention.head_count_kv"), value("llama.rope.freq_base")
        self.epsilon = value("llama.attention.layer_norm_rms_epsilon")
        self.tensors = {t.name: (lambda t=t: dequantize(t.data, t.tensor_type).astype(np.float64)) for t in reader.tensors}

    def embedding(self):
        return self.tensors["token_embd.weight"]()

    def head(self):
        return self.tensors.get("output.weight", self.tensors["token_embd.weight"])()

    def norm(self):
        return self.tensors["output_norm.weight"]()

    def layer(self, n, name):
        names = {
            "norm 1": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
            "norm 2": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
        }
        return self.tensors[f"blk.{n}.{names[name]}.weight"]()

    def pairs(self, half):
        return 2 * np.arange(half), 2 * np.arange(half) + 1


def logits(model, ids):
    """[time, vocabulary]"""
    rms = lambda x, weight: x / np.sqrt((x**2).mean(-1, keepdims=True) + model.epsilon) * weight
    x = model.embedding()[ids]
    time = len(ids)

    def rotated(y):
        head = y.shape[-1]
        angle = np.outer(np.arange(time), model.base ** (-2 * np.arange(head // 2) / head))
        first, second = model.pairs(head // 2)
        z = np.empty_like(y)
        z[..., first] = y[..., first] * np.cos(angle) - y[..., second] * np.sin(angle)
        z[..., second] = y[..., first] * np.sin(angle) + y[..., second] * np.cos(angle)
        return z

    for n in range(model.layers):
        w = lambda name: model.layer(n, name)
        y = rms(x, w("norm 1"))
        heads = lambda z, count: z.reshape(time, count, -1).transpose(1, 0, 2)
        q = rotated(heads(y @ w("q").T, model.heads))
        k = rotated(heads(y @ w("k").T, model.key_heads))
        v = heads(y @ w("v").T, model.key_heads)
        mixed = []
        for h in range(model.heads):
            g = h * model.key_heads // model.heads
            scores = q[h] @ k[g].T / np.sqrt(q.shape[-1])
            scores[np.triu_indices(time, 1)] = -np.inf
            e = np.exp(scores - scores.max(-1, keepdims=True))
            mixed.append(e / e.sum(-1, keepdims=True) @ v[g])
        x = x + np.concatenate(mixed, -1) @ w("o").T
        y = rms(x, w("norm 2"))
        gate = y @ w("gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w("up").T)) @ w("down").T
    return rms(x, model.norm()) @ model.head().T


def main():
    path = Path(sys.argv[1])
    model = Folder(path) if path.is_dir() else Gguf(path)
    vocabulary = model.embedding().shape[0]
    if len(sys.argv) > 3:
        lists = json.loads(Path(sys.argv[3]).read_text())
    else:
        draws = np.random.default_rng(7)
        lists = [draws.integers(0, vocabulary, length).tolist() for length in (1, 5, 24)]
    cases = []
    for ids in lists:
        rows = logits(model, ids)
        positions = []
        for at in range(max(0, len(ids) - 4), len(ids)):
            top = np.argsort(-rows[at])[:8]
            positions.append({
                "at": at,
                "top": [[int(token), round(float(rows[at, token]), 6)] for token in top],
                "squares": round(float((rows[at] ** 2).sum()), 3),
            })
        cases.append({"ids": ids, "positions": positions})
    Path(sys.argv[2]).write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    main()
