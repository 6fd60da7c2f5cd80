"""Makes tests/fixtures/stores again: stores that bergson and LogIX write for a tiny model of random weights, and how
they themselves rank queries against them; and files of the layouts of RapidIn and LESS.

    python3.11 -m venv stores-venv
    stores-venv/bin/pip install --ignore-requires-python --no-deps -r scripts/stores-requirements.txt
    stores-venv/bin/python scripts/make-stores.py tests/fixtures/stores

It runs on the CPU in a minute. Another machine rounds otherwise: then other numbers come out, of the same kind.
"""

import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<unk>", "<eos>"] + [f"w{i}" for i in range(62)]
TRAIN, QUERIES, TOP = 24, 3, 6
# What neither these packages nor gradix reads again.
UNUSED = ["hessians.pth", "hessians_eigen.pth", "total_processed.pt", "dataset_info.json"]


def make_model():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "eos_token": "<eos>", "pad_token": "<eos>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained("model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    ends = {"pad_token_id": 1, "eos_token_id": 1, "bos_token_id": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), **sizes, **heads, **ends)).save_pretrained("model")


def make_texts():
    draw = random.Random(1)
    for name, count in [("train", TRAIN), ("query", QUERIES), ("few", 4)]:
        texts = [" ".join(draw.choices(WORDS[2:], k=draw.randint(3, 12))) for _ in range(count)]
        rows = [{"doc": f"{name}-{i}", "text": text} for i, text in enumerate(texts)]
        Dataset.from_list(rows).save_to_disk(f"{name}.hf")


def make_bergson(to):
    from bergson.build import build
    from bergson.cli.commands import Build, save_run_config
    from bergson.config import DataConfig, IndexConfig, PreprocessConfig
    from bergson.data import load_module_gradients
    from bergson.query.attributor import Attributor
    from bergson.utils.utils import numpy_to_tensor

    def run(name, data, unit=False, **settings):
        config = IndexConfig(
            run_path=f"bergson/{name}",
            model="model",
            data=DataConfig(dataset=f"{data}.hf"),
            projection_dim=4,
            drop_columns=False,
            token_batch_size=64,
            **settings,
        )
        config.distributed.nproc_per_node = 1
        preprocess = PreprocessConfig(unit_normalize=unit)
        save_run_config(Build(config, preprocess), config.partial_run_path)
        build(config, preprocess)

    run("train", "train")
    run("query", "query")
    run("unit-f16", "few", unit=True, precision="fp16")
    run("tokens-bf16", "few", precision="bf16", attribute_tokens=True)

    attributor = Attributor("bergson/train")
    gradients = load_module_gradients("bergson/query")
    queries = {name: numpy_to_tensor(gradients[name].copy()) for name in gradients}
    expected = {}
    for end, reverse in [("proponents", False), ("opponents", True)]:
        scores, rows = attributor.search(queries, TOP, reverse=reverse)
        expected[end] = {"rows": rows.tolist(), "scores": scores.tolist()}
    Path("bergson/expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    shutil.copytree("bergson", to / "bergson", ignore=shutil.ignore_patterns(*UNUSED))


def make_logix(to):
    import logix

    Path("logix.yaml").write_text("root_dir: .\nlora:\n  init: random\n  rank: 2\nlogging:\n  flush_threshold: 200\n")
    run = logix.init(project="logix", config="logix.yaml")
    model = LlamaForCausalLM.from_pretrained("model")
    tokenizer = PreTrainedTokenizerFast.from_pretrained("model")
    torch.manual_seed(1)
    run.watch(model, name_filter=["mlp", "self_attn"])
    run.add_lora()
    run.setup({"grad": ["log"]})

    def log(example, save):
        inputs = tokenizer(example["text"], return_tensors="pt")
        with run(data_id=[example["doc"]], save=save):
            model.zero_grad()
            model(input_ids=inputs["input_ids"], labels=inputs["input_ids"]).loss.backward()
        return run.get_log(copy=True)

    for example in Dataset.load_from_disk("train.hf"):
        log(example, save=True)
    run.finalize()

    loader = run.build_log_dataloader()
    paths = run.state.get_state("model_module")["path"]
    queries, expected = [], {"proponents": {"ids": [], "scores": []}, "opponents": {"ids": [], "scores": []}}
    for example in Dataset.load_from_disk("query.hf"):
        ids, gradients = log(example, save=False)
        queries.append(np.concatenate([gradients[module][kind].numpy().ravel() for module, kind in paths]))
        result = run.compute_influence_all((ids, gradients), loader, precondition=False)
        scores = result["influence"][0]
        for end, largest in [("proponents", True), ("opponents", False)]:
            best = torch.topk(scores, TOP, largest=largest)
            expected[end]["ids"].append([result["tgt_ids"][i] for i in best.indices])
            expected[end]["scores"].append(best.values.tolist())
    shutil.copytree("logix", to / "logix", ignore=shutil.ignore_patterns("state"))
    np.save(to / "logix-query.npy", np.stack(queries))
    (to / "logix-expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def main(to):
    to = Path(to).resolve()
    for part in ["bergson", "logix"]:
        shutil.rmtree(to / part, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        # Paths in what the packages write are relative to it.
        os.chdir(folder)
        make_model()
        make_texts()
        make_bergson(to)
        make_logix(to)
        os.chdir("/")


if __name__ == "__main__":
    main(sys.argv[1])
