"""Makes tests/fixtures/stores again: stores that bergson and LogIX write for a tiny model of random weights, and how
they themselves rank queries against them; and files of the layouts of RapidIn and LESS.

    python3.11 -m venv stores-venv
    stores-venv/bin/pip install --ignore-requires-python --no-deps -r scripts/stores-requirements.txt
    stores-venv/bin/python scripts/make-stores.py tests/fixtures/stores
    /usr/bin/python3 scripts/make-stores.py tests/fixtures/stores --torch    # files of an old torch: Debian 12's

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

WORDS = ["<unk>", "<eos>"] + [f"w{i}" for i in range(62)]
TRAIN, QUERIES, TOP = 24, 3, 6
# What neither these packages nor gradix reads again.
UNUSED = ["hessians.pth", "hessians_eigen.pth", "total_processed.pt", "dataset_info.json"]


def make_model():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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
    from datasets import Dataset

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
    from datasets import Dataset
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

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


def ranked(rows, queries, name):
    """The best and the worst of rows for each query, whose examples are called by `name`."""
    scores = queries.float() @ rows.float().T
    expected = {}
    for end, largest in [("proponents", True), ("opponents", False)]:
        best = torch.topk(scores, TOP, largest=largest)
        ids = [[name(i) for i in row] for row in best.indices.tolist()]
        expected[end] = {"ids": ids, "scores": best.values.tolist()}
    return expected


def make_rapidin(to):
    """As `RapidIn/engine.py` saves what `RapidGrad` folds: a vector of halves for each example."""
    folder = to / "rapidin"
    folder.mkdir()
    torch.manual_seed(2)
    vectors = torch.randn(14, 32).half()
    # Some examples of a file of 20.
    numbers = [0, 1, 2, 3, 5, 8, 9, 10, 11, 13, 14, 15, 18, 19]
    for number, vector in zip(numbers, vectors):
        for dims in [32, 16]:
            torch.save(vector.reshape(dims, -1).sum(1), folder / f"train_grad_K{dims}_{number:08d}.pt")
    # RapidIn's own holds the shuffles, and nobody reads it.
    (folder / "RapidGrad_D1024_n40.obj").write_bytes(b"")
    queries = torch.randn(QUERIES, 32).half()
    np.save(to / "rapidin-query.npy", queries.float().numpy())
    expected = ranked(vectors, queries, lambda i: str(numbers[i]))
    (to / "rapidin-expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def make_less(to):
    """As `less/data_selection/collect_grad_reps.py` saves and merges what is projected."""
    torch.manual_seed(3)
    for dims in [24, 8]:
        folder = to / "less" / f"dim{dims}"
        folder.mkdir(parents=True)
        rows = torch.randn(20, dims).half()
        torch.save(rows[:16].clone(), folder / "grads-16.pt")
        torch.save(rows[16:].clone(), folder / "grads-20.pt")
        torch.save(torch.nn.functional.normalize(rows, dim=1), folder / "all_orig.pt")
        torch.save(rows, folder / "all_unormalized.pt")
    rows = torch.load(to / "less" / "dim24" / "all_orig.pt")
    queries = torch.nn.functional.normalize(torch.randn(QUERIES, 24).half(), dim=1)
    np.save(to / "less-query.npy", queries.float().numpy())
    (to / "less-expected.json").write_text(json.dumps(ranked(rows, queries, str), indent=1) + "\n")


def make_torch(to):
    """What a version of torch saves, and the numbers in it."""
    folder = to / ("torch-" + ".".join(torch.__version__.split(".")[:2]))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    whole = torch.arange(12.0).reshape(3, 4) / 8 - 0.5
    tensors = {
        "f16": whole.half(),
        "bf16": whole.bfloat16(),
        "f32": whole,
        "f64": whole.double(),
        "transposed": whole.T,
        "columns": whole[:, 1:3],
        "steps": whole[::2, ::3],
        "later-rows": whole[1:],
        "parameter": torch.nn.Parameter(whole),
        "three-dimensions": torch.arange(24.0).reshape(2, 3, 4).permute(1, 0, 2),
    }
    for name, tensor in tensors.items():
        torch.save(tensor, folder / f"{name}.pt")
    expected = {name: {"shape": list(t.shape), "values": t.double().reshape(-1).tolist()} for name, t in tensors.items()}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    others = {
        "integers": torch.arange(12).reshape(3, 4),
        "expanded": torch.ones(1, 1).expand(3, 4),
        "dictionary": {"a": [whole, (1, 2.5, "x", None, True, 10**12)]},
        "list": [whole, whole.half()],
    }
    for name, value in others.items():
        torch.save(value, folder / f"{name}.pt")
    torch.save(whole, folder / "before-1.6.pt", _use_new_zipfile_serialization=False)
    torch.save(whole, folder / "protocol-4.pt", pickle_protocol=4)
    if hasattr(torch.serialization, "set_crc32_options"):
        torch.serialization.set_crc32_options(False)
        torch.save(whole, folder / "no-checksums.pt")
        torch.serialization.set_crc32_options(True)


def main(to, only_torch):
    to = Path(to).resolve()
    make_torch(to)
    if only_torch:
        return
    for part in ["bergson", "logix", "rapidin", "less"]:
        shutil.rmtree(to / part, ignore_errors=True)
    make_rapidin(to)
    make_less(to)
    with tempfile.TemporaryDirectory() as folder:
        # Paths in what the packages write are relative to it.
        os.chdir(folder)
        make_model()
        make_texts()
        make_bergson(to)
        make_logix(to)
        os.chdir("/")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] == ["--torch"])
