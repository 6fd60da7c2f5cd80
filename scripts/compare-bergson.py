"""Collects the gradients of a small language model with gradix and with bergson, side by side, and compares speed, bytes,
and rankings with those of exact gradients. Prints a table. Needs torch, transformers, datasets, bergson and gradix:

    python scripts/compare-bergson.py [--examples 400] [--rounds 3] [--threads 2]

Both take the same linear layers, the same loss (the sum over an example's tokens) and batches of the same bounds. Runs
alternate, so that other work on the machine slows all alike; rates are of the best round, ratios of rounds. gradix's
time includes a durable commit.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import torch
from bergson import Attributor, GradientProcessor, IndexConfig, collect_gradients, load_module_gradients
from bergson.config.config import DataConfig
from bergson.data import allocate_batches
from bergson.utils.utils import numpy_to_tensor
from datasets import Dataset
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

import gradix
import gradix.torch

VOCABULARY, TOPICS, TOP, SIDE = 512, 16, 10, 16
BATCH_TOKENS, BATCH_ROWS = 2048, 32


def make_texts(count, seed):
    """Walks on one of several random graphs each, from 32 to 96 tokens."""
    graphs = np.random.default_rng(0).integers(0, VOCABULARY, (TOPICS, VOCABULARY, 4))
    draw = np.random.default_rng(seed)
    texts = []
    for number in range(count):
        topic, ids = number % TOPICS, [int(draw.integers(VOCABULARY))]
        while len(ids) < 32 + int(draw.integers(65)):
            ids.append(int(graphs[topic, ids[-1], draw.integers(4)]))
        texts.append({"id": f"text {number}", "input_ids": ids, "topic": topic})
    return texts


def make_model(texts):
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=128,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        batch = gradix.torch.pad([texts[(step * 16 + at) % len(texts)] for at in range(16)])
        gradix.torch.next_token_loss(model, batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def sum_loss(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), batch["labels"][:, 1:], reduction="none")
    return losses.sum(1)


def modules(model):
    return [
        name for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith("model.")
    ]


class Gradix:
    def __init__(self, name, spec, encoding):
        self.name, self.spec, self.encoding = name, spec, encoding

    def collect(self, model, texts, folder):
        chosen = {f"{name}.weight" for name in modules(model)}
        self.collector = gradix.torch.Collector(
            model, self.spec, loss=sum_loss, collate=gradix.torch.pad, select=chosen.__contains__,
            batch_rows=BATCH_ROWS, batch_tokens=BATCH_TOKENS, check=False,
        )
        self.index = gradix.Index.create(folder, gradix.Schema(self.spec, self.encoding))
        self.collector.run(texts, self.index)

    def rank(self, model, queries, folder):
        with self.index.snapshot() as snapshot:
            ranking = snapshot.scan(self.collector.sketch(queries), top_k=TOP)
        return [[int(hit.id.split()[1]) for hit in ranking.proponents(query)] for query in range(len(queries))]

    def size(self, folder):
        return sum(file.stat().st_size for file in (folder / "segments").rglob("*") if file.is_file())


class Bergson:
    def __init__(self, name, precision):
        self.name, self.precision = name, precision

    def config(self, folder):
        return IndexConfig(
            run_path=str(folder), projection_dim=SIDE, data=DataConfig(truncation=False), precision=self.precision,
            token_batch_size=BATCH_TOKENS, max_batch_size=BATCH_ROWS, loss_reduction="sum",
        )

    def collect(self, model, texts, folder):
        data = Dataset.from_list([{"input_ids": it["input_ids"], "length": len(it["input_ids"])} for it in texts])
        config = self.config(folder)
        config.partial_run_path.mkdir(parents=True, exist_ok=True)
        processor = GradientProcessor(projection_dim=SIDE)
        batches = allocate_batches(data["length"][:], BATCH_TOKENS, max_batch_size=BATCH_ROWS)
        collect_gradients(model, data, processor, config, batches=batches)
        shutil.move(config.partial_run_path, folder)

    def rank(self, model, queries, folder):
        other = folder.with_name(folder.name + " queries")
        self.collect(model, queries, other)
        gradients = load_module_gradients(other)
        found = {name: numpy_to_tensor(gradients[name].copy()) for name in gradients}
        return Attributor(folder).search(found, TOP)[1].tolist()

    def size(self, folder):
        return (folder / "gradients.bin").stat().st_size


def exact_rankings(model, texts, queries):
    """By the gradients of each example alone, in float64 products."""
    names = [f"{name}.weight" for name in modules(model)]
    named = dict(model.named_parameters())

    def gradients(examples):
        rows = []
        for example in examples:
            loss = sum_loss(model, gradix.torch.pad([example])).sum()
            parts = torch.autograd.grad(loss, [named[name] for name in names])
            rows.append(torch.cat([part.reshape(-1) for part in parts]))
        return torch.stack(rows)

    of_queries = gradients(queries).double()
    scores = [of_queries @ gradients(texts[at : at + 50]).double().T for at in range(0, len(texts), 50)]
    return torch.cat(scores, 1).topk(TOP).indices.tolist()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--examples", type=int, default=400)
    options.add_argument("--queries", type=int, default=32)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    texts, queries = make_texts(options.examples, 1), make_texts(options.queries, 2)
    model = make_model(texts)
    names = modules(model)
    blocks = [(f"{name}.weight", SIDE, SIDE) for name in names]
    kronecker = gradix.SketchSpec.kronecker(7, blocks)
    dims = 1 << (kronecker.dims - 1).bit_length()
    ways = [
        Bergson("bergson, rademacher 16x16, f32", "fp32"),
        Gradix("gradix, Kronecker 16x16, f32", kronecker, "f32"),
        Gradix("gradix, Kronecker 16x16, f16", kronecker, "f16"),
        Gradix("gradix, Kronecker 16x16, i8", kronecker, "i8"),
        Gradix(f"gradix, RapidGrad {dims}, f16", gradix.SketchSpec.rapid_grad(7, dims), "f16"),
    ]
    print(
        f"torch {torch.__version__}, {options.threads} threads; {len(names)} linear layers, "
        f"{sum(p.numel() for n, p in model.named_parameters() if n.removesuffix('.weight') in names):,} weights, "
        f"{len(texts)} examples of {sum(len(it['input_ids']) for it in texts) / len(texts):.0f} tokens, {options.rounds} rounds"
    )
    seconds = {way.name: [] for way in ways}
    with tempfile.TemporaryDirectory() as root:
        folders = {}
        for round in range(options.rounds):
            for way in ways:
                folders[way.name] = Path(root) / f"{way.name} {round}"
                began = time.perf_counter()
                way.collect(model, texts, folders[way.name])
                seconds[way.name].append(time.perf_counter() - began)
        exact = exact_rankings(model, texts, queries)
        print(f"| way | rows a second | time over bergson's | bytes an example | of the exact top {TOP} |\n|---|---|---|---|---|")
        for way in ways:
            folder, taken = folders[way.name], seconds[way.name]
            ratios = np.array(taken) / np.array(seconds[ways[0].name])
            found = way.rank(model, queries, folder)
            overlap = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found, exact)])
            print(
                f"| {way.name} | {len(texts) / min(taken):.0f} | {np.median(ratios):.2f} | "
                f"{way.size(folder) / len(texts):.0f} | {overlap:.0%} |"
            )


if __name__ == "__main__":
    main()
