"""The collector: rows of an index from examples, resumable, and queries."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="SKIPPED: PyTorch is not installed, so gradix.torch is not tested")

import gradix  # noqa: E402
import gradix.torch as gt  # noqa: E402
from torch import nn  # noqa: E402
from torch_models import Language, texts  # noqa: E402

SPEC = gradix.SketchSpec.rapid_grad(7, 256)


def language():
    torch.manual_seed(1)
    return Language().eval()


def collector(model=None, **options):
    settings = {"batch_rows": 4, "window_rows": 8, **options}
    return gt.Collector(model or language(), settings.pop("spec", SPEC), **settings)


def create(folder, spec=SPEC):
    return gradix.Index.create(folder, gradix.Schema(spec, "f32"))


def rows(index):
    """All rows by id, span and source: their values."""
    with index.snapshot() as snapshot:
        return {(row.id, row.span, row.source): np.array(row.sketch.values) for row in snapshot.rows(sketches=True)}


def records(index):
    with index.writer() as writer:
        payloads = [writer.payload(generation) for generation in range(1, writer.generation + 1)]
    return [json.loads(payload) for payload in payloads if payload]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in found)


def test_rows_are_those_of_examples_alone(tmp_path):
    """Catches rows that are given to another example where batches are sorted by length, and lost sources."""
    examples = texts(21)
    index = create(tmp_path / "index")
    done = collector().run(examples, index, sources="source", commit_every=10)
    assert (done.rows, done.examples, done.failures) == (21, 21, [])
    found = rows(index)
    assert len(found) == 21 and len(records(index)) > 1
    alone = collector(batch_rows=1)
    for example in examples:
        expected = alone.sketch([example])[0]
        row = found[example["id"], None, example["source"]]
        np.testing.assert_allclose(row, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_attributes_of_examples(tmp_path):
    """Catches ids, sources and metadata that are taken from elsewhere than they were asked for."""
    examples = [{**text, "number": at} for at, text in enumerate(texts(4))]
    index = create(tmp_path / "index")
    collector().run(
        iter(examples), index, ids=lambda it: it["number"], sources=["a", "b", None, "d"],
        metadata=lambda it: json.dumps(it["number"]),
    )
    with index.snapshot() as snapshot:
        found = [(row.id, row.source, row.metadata) for row in snapshot.rows()]
    assert found == [("0", "a", b"0"), ("1", "b", b"1"), ("2", None, b"2"), ("3", "d", b"3")]
    with pytest.raises(ValueError, match="fewer ids"):
        collector().run(examples, index, ids=["x"], name="other")


def test_records_are_those_of_the_specification(tmp_path):
    """Catches a payload that gradix's other collector, or format-spec/collect.md, would not read so."""
    import hashlib

    examples = texts(9)
    index = create(tmp_path / "index")
    collector(max_tokens=9).run(examples, index, sources="source", commit_every=1, name="part")
    found = records(index)
    assert [record["start"] for record in found] == [0, *[record["end"] for record in found[:-1]]]
    digest = "0" * 64
    for record in found:
        assert set(record) == {
            "gradix_collect", "name", "start", "end", "rows", "digest_before", "digest", "tags", "settings", "weights",
            "parameters", "failures",
        }
        assert record["digest_before"] == digest
        for at in range(record["start"], record["end"]):
            example = examples[at]
            own = hashlib.sha256()
            for field in [example["id"], str(len(example["input_ids"])), example["source"], "", "whole"]:
                own.update(f"{len(field)}:{field}".encode())
            assert record["tags"][8 * (at - record["start"]) :].startswith(own.hexdigest()[:8])
            digest = hashlib.sha256((digest + own.hexdigest()).encode()).hexdigest()
        assert record["digest"] == digest
    long = [at for at, example in enumerate(examples) if len(example["input_ids"]) > 9]
    failures = [failure for record in found for failure in record["failures"]]
    assert long and [(it["position"], it["reason"]) for it in failures] == [(at, "too_long") for at in long]
    assert found[0]["settings"] == {
        "rows": "losses", "window_rows": 8, "batch_rows": 4, "batch_tokens": 16384, "max_tokens": 9,
    }
    (parameters,) = found[0]["parameters"]
    lines = "".join(f"{name} {'x'.join(map(str, shape))}\n" for name, shape in parameters["list"])
    assert parameters["digest"] == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert parameters["list"][0] == ["tokens.weight", [23, 8]]


def test_failures_do_not_take_others_along(tmp_path):
    """Catches an example of a batch whose loss or id is bad that takes the others' rows with it, or goes unsaid."""
    examples = texts(8)
    examples[1]["labels"] = [-100] * len(examples[1]["labels"])
    examples[5] = {**examples[5], "id": examples[2]["id"]}
    model = language()

    def loss(model, batch):
        losses = gt.next_token_loss(model, batch)
        bad = (batch["input_ids"][:, :2] == torch.tensor(examples[6]["input_ids"][:2])).all(1)
        return losses * torch.where(bad, float("nan"), 1.0)

    index = create(tmp_path / "index")
    done = collector(model, collate=gt.pad, loss=loss).run(examples, index)
    reasons = {failure["position"]: failure["reason"] for failure in done.failures}
    assert reasons[5] == "refused" and reasons[6] == "not_finite" and reasons[1] == "not_finite"
    assert {row[0] for row in rows(index)} == {examples[at]["id"] for at in range(8) if at not in reasons}
    done = collector(model).run(examples[:4], create(tmp_path / "other"))
    assert [(it["id"], it["reason"]) for it in done.failures] == [(examples[1]["id"], "empty")]
    with pytest.raises(gt.CollectError, match="text 1.* at position 1: empty"):
        collector(model, on_failure="raise").run(examples[:4], create(tmp_path / "third"))
    with pytest.raises(gt.GradientError, match="row 1"):
        collector(model).sketch(examples[:4])


def test_refused_rows_of_a_run_that_raises(tmp_path):
    """Catches rows of an unfinished window that are committed without a record of them."""
    examples = texts(20)
    examples[18] = {**examples[18], "id": examples[17]["id"]}
    index = create(tmp_path / "index")
    with pytest.raises(gt.CollectError, match="refused"):
        collector(on_failure="raise").run(examples, index, commit_every=1)
    assert len(rows(index)) == 16 == records(index)[-1]["end"]


def test_resumed_run_equals_an_uninterrupted_one(tmp_path):
    """Catches batches that depend on where a run began: bits would differ. Catches lost and doubled windows too."""
    examples = texts(60)
    whole = create(tmp_path / "whole")
    collector().run(examples, whole, sources="source", commit_every=20)

    class Stop(Exception):
        pass

    def until(last):
        for example in examples:
            if example is examples[last]:
                raise Stop
            yield example

    part = create(tmp_path / "part")
    for last in (13, 50):
        with pytest.raises(Stop):
            collector().run(until(last), part, sources="source", commit_every=20)
    done = collector().run(examples, part, sources="source", commit_every=20)
    assert 40 <= done.resumed_at <= 50 and done.rows == 60 - done.resumed_at
    assert_same(rows(part), rows(whole))
    again = collector().run(examples, part, sources="source")
    assert (again.rows, again.resumed_at) == (0, 60)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import gradix
from test_torch_collect import collector, texts

def until(examples, last):
    for at, example in enumerate(examples):
        if at == last:
            os.kill(os.getpid(), signal.SIGKILL)
        yield example

index = gradix.Index.open(sys.argv[2])
collector().run(until(texts(60), 43), index, sources="source", commit_every=8)
"""


def test_killed_run_equals_an_uninterrupted_one(tmp_path):
    """Catches a commit that is not durable, and a record that does not match the rows beside it, after a SIGKILL."""
    whole, killed = create(tmp_path / "whole"), create(tmp_path / "killed")
    collector().run(texts(60), whole, sources="source", commit_every=8)
    tests = str(Path(__file__).parent)
    process = subprocess.run([sys.executable, "-c", KILLED, tests, str(tmp_path / "killed")], env=os.environ)
    assert process.returncode == -signal.SIGKILL
    done = collector().run(texts(60), killed, sources="source", commit_every=8)
    assert 8 <= done.resumed_at <= 43
    assert_same(rows(killed), rows(whole))


def test_interrupted_run_keeps_complete_windows(tmp_path):
    """Catches work that Ctrl-C throws away though it was done."""
    examples = texts(30)

    def until(last):
        for example in examples[:last]:
            yield example
        raise KeyboardInterrupt

    index = create(tmp_path / "index")
    with pytest.raises(KeyboardInterrupt):
        collector().run(until(20), index)
    assert len(rows(index)) == 16
    assert collector().run(examples, index).resumed_at == 16


@pytest.mark.parametrize("where", ["last", "first", "after an error"])
@pytest.mark.parametrize("is_done", [True, False])
def test_interrupted_commit(tmp_path, where, is_done):
    """Catches rows that stay in the caller's writer after Ctrl-C in a commit, and are committed without a record of them; or
    a second record of the same rows, where the commit was done."""
    examples = texts(24)

    class Interrupted:
        """A writer whose commit is interrupted: before it is done, or behind it."""

        def __init__(self, writer):
            self.writer = writer

        def __getattr__(self, name):
            return getattr(self.writer, name)

        def commit(self, payload):
            if is_done:
                self.writer.commit(payload)
            raise KeyboardInterrupt

    index, whole = create(tmp_path / "index"), create(tmp_path / "whole")
    with index.writer() as writer:
        with pytest.raises(KeyboardInterrupt):
            given = (examples[at] for at in range(25 if where == "after an error" else 24))
            collector().run(given, Interrupted(writer), commit_every=8 if where == "first" else 8192)
    collected = (8 if where == "first" else 24) if is_done else 0
    assert len(rows(index)) == collected == sum(record["rows"] for record in records(index))
    done = collector().run(examples, index)
    assert (done.resumed_at, done.rows) == (collected, 24 - collected)
    collector().run(examples, whole)
    assert_same(rows(index), rows(whole))


def test_resume_refuses_what_has_changed(tmp_path):
    """Catches rows of another input, model or setting that are appended behind those of the first."""
    examples = texts(24)
    index = create(tmp_path / "index")
    collector(weights="step 100").run(examples[:16], index)
    again = lambda *args, **options: collector(weights="step 100", **options).run(*args, index)  # noqa: E731
    changed = [*examples[:3], {**examples[3], "id": "other"}, *examples[4:]]
    with pytest.raises(gt.ResumeError, match="changed at position 3"):
        again(changed)
    with pytest.raises(gt.ResumeError, match="ends at position 9"):
        again(examples[:9])
    with pytest.raises(gt.ResumeError, match="batch_rows was 4"):
        again(examples, batch_rows=5)
    with pytest.raises(gt.ResumeError, match="weights was 'step 100'"):
        collector().run(examples, index)
    with pytest.raises(gt.ResumeError, match="'head.weight' has the shape"):
        torch.manual_seed(1)
        again(examples, model=Language(tied=False).eval())
    with pytest.raises(gt.ResumeError, match="spec"):
        again(examples, spec=gradix.SketchSpec.rapid_grad(8, 256))
    tokens = [*examples[3]["input_ids"][:-1], 1 + examples[3]["input_ids"][-1] % 22]
    for other in ({"input_ids": tokens}, {"labels": [-100, -100, *examples[3]["labels"][2:]]}):
        with pytest.raises(gt.ResumeError, match="tokens, labels or masks of examples before position 16"):
            again([*examples[:3], {**examples[3], **other}, *examples[4:]])
    # The same numbers in another container are no change.
    examples[3] = {**examples[3], "input_ids": torch.tensor(examples[3]["input_ids"], dtype=torch.int32)}
    assert again(examples).resumed_at == 16
    assert len(rows(index)) == 24
    assert all(record["weights"].startswith("step 100 examples:") for record in records(index))
    with pytest.raises(ValueError, match="181 bytes"):
        collector(weights="w" * 182)


@pytest.mark.parametrize("hashed", [1 << 24, 100])
def test_resume_refuses_other_weights(tmp_path, monkeypatch, hashed):
    """Catches rows of a model that was trained further, or is another one of the same shapes, behind those of the first."""
    from gradix.torch import _record

    monkeypatch.setattr(_record, "MAX_HASHED", hashed)
    examples = texts(24)
    index = create(tmp_path / "index")
    collector(language().bfloat16()).run(examples[:16], index)
    with pytest.raises(gt.ResumeError, match="weights was 'parameters:"):
        collector().run(examples, index)
    other = language().bfloat16()
    other.shifted.weight.data[0] += 1
    with pytest.raises(gt.ResumeError, match="weights was 'parameters:"):
        collector(other).run(examples, index)
    assert collector(language().bfloat16()).run(examples, index).resumed_at == 16
    assert all(len(record["weights"].encode()) <= 255 for record in records(index))


def test_resume_without_records(tmp_path):
    """Catches a collection that begins anew, and fails at ids that exist, once its commits were collected as garbage."""
    examples = texts(32)
    index, whole = create(tmp_path / "index"), create(tmp_path / "whole")
    collector().run(examples, whole)
    collector().run(examples[:16], index)
    with index.writer() as writer:
        writer.append("another", np.zeros(SPEC.dims, np.float32))
        writer.commit(b"not a collector's")
        writer.gc(keep_generations=1, grace=0.0)
        assert writer.payload(1) is None
    done = collector().run(examples, index)
    assert (done.resumed_at, done.rows) == (16, 16)
    found = rows(index)
    del found["another", None, None]
    assert_same(found, rows(whole))


def test_deleted_examples_stay_deleted_without_records(tmp_path):
    """Catches a collection that goes on at the first window that was deleted, so that deleted examples come back."""
    examples = texts(40)
    index = create(tmp_path / "index")
    collector().run(examples[:32], index)
    with index.writer() as writer:
        for example in [*examples[:16], examples[25]]:
            assert writer.delete(example["id"])
        writer.commit(b"")
        writer.gc(keep_generations=1, grace=0.0)
        assert writer.payload(1) is None
    done = collector().run(iter(examples), index)
    assert (done.resumed_at, done.rows) == (32, 8)
    kept = [*examples[16:25], *examples[26:]]
    assert {row[0] for row in rows(index)} == {example["id"] for example in kept}
    again = collector().run(examples, index)
    assert (again.resumed_at, again.rows) == (40, 0)


def test_several_collections_of_one_index(tmp_path):
    """Catches a collection that goes on behind another one's records."""
    examples = texts(20)
    index = create(tmp_path / "index")
    collector().run(examples[:10], index, name="a")
    assert collector().run(examples[10:], index, name="b").resumed_at == 0
    assert collector().run(examples[:10], index, name="a").resumed_at == 10
    assert len(rows(index)) == 20


def test_detached_runs(tmp_path):
    """Catches parts of a detached writer that a run does not go on behind, or that hold other rows than an index."""
    examples = texts(24)
    whole, index = create(tmp_path / "whole"), create(tmp_path / "index")
    collector().run(examples, whole)
    for end in (16, 24):
        with index.detached(tmp_path / "parts") as writer:
            done = collector().run(examples[:end], writer, commit_every=8)
            assert (done.resumed_at, done.rows) == ((0, 16) if end == 16 else (16, 8))
    with index.writer() as writer:
        writer.attach(tmp_path / "parts")
    assert_same(rows(index), rows(whole))


def test_batches_that_do_not_fit_are_halved(tmp_path):
    """Catches a run that ends where a device has no memory for a batch, and examples that are lost with it."""
    model = language()
    sizes = []

    def loss(model, batch):
        sizes.append(len(batch["input_ids"]))
        if sizes[-1] > 2 or batch["input_ids"].shape[1] > 10:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return gt.next_token_loss(model, batch)

    examples = texts(16)
    index, whole = create(tmp_path / "index"), create(tmp_path / "whole")
    done = collector(model, loss=loss, check=False).run(examples, index)
    long = [example["id"] for example in examples if len(example["input_ids"]) > 10]
    assert 4 in sizes and 1 in sizes and long
    assert [(it["id"], it["reason"]) for it in done.failures] == [(id, "out_of_memory") for id in long]
    collector(batch_rows=2).run(examples, whole)
    found, expected = rows(index), rows(whole)
    assert len(found) == 16 - len(long)
    for key, row in found.items():
        np.testing.assert_allclose(row, expected[key], rtol=1e-3, atol=1e-5 * np.abs(row).max())

    def broken(model, batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        collector(model, loss=broken).run(examples, index, name="broken")


def test_padding_of_a_tokenizer_is_no_text():
    """Catches padding tokens that have a loss where an example has an attention mask and no labels."""
    tokens = texts(1)[0]["input_ids"]
    count = len(tokens)
    plain = {"input_ids": tokens}
    padded = {"input_ids": [*tokens, 0, 0, 0], "attention_mask": [1] * count + [0] * 3}
    expected = collector().sketch([plain])
    as_tensors = {key: torch.tensor(value) for key, value in padded.items()}
    for example in (padded, as_tensors):
        np.testing.assert_allclose(collector().sketch([example]), expected, rtol=1e-4, atol=1e-6)
    positions, queries = collector().tokens(padded)
    assert positions == list(range(1, count))
    np.testing.assert_allclose(queries, collector().tokens(plain)[1], rtol=1e-4, atol=1e-6)
    # The first token has no loss, also where padding is before it.
    left = {"input_ids": [0, 0, *tokens], "attention_mask": [0, 0] + [1] * count}
    assert collector().tokens(left)[0] == list(range(3, count + 2))
    labelled = {**padded, "labels": padded["input_ids"]}
    assert len(collector().tokens(labelled)[0]) == count + 2


@pytest.mark.parametrize("make", [lambda ids: [ids], lambda ids: torch.tensor([ids]), lambda ids: np.array([ids])])
def test_tokens_with_an_axis_for_a_batch(make):
    """Catches a tokenizer's batch of one that is taken for an example of one token."""
    with pytest.raises(ValueError, match="input_ids must be one-dimensional"):
        collector().sketch([{"input_ids": make([3, 1, 4])}])


def test_token_rows_add_up_to_the_example(tmp_path):
    """Catches tokens whose target is the neighbour's, and losses that are divided by another number of tokens: the mean
    of the rows of an example's tokens is its own row."""
    examples = texts(6)
    spans = [[(at, at + 1) for at in range(1, len(it["input_ids"]))] for it in examples]
    index = create(tmp_path / "index")
    done = collector().run(examples, index, spans=spans)
    assert done.rows == sum(map(len, spans)) and not done.failures
    found = rows(index)
    whole = collector().sketch(examples)
    for example, of_one, expected in zip(examples, spans, whole):
        mean = np.mean([found[example["id"], span, None] for span in of_one], 0)
        np.testing.assert_allclose(mean, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    positions, tokens = collector().tokens(examples[0])
    assert positions == [span[0] for span in spans[0]]
    for span, token in zip(spans[0], tokens):
        np.testing.assert_allclose(token, found[examples[0]["id"], span, None], rtol=1e-3, atol=1e-4 * np.abs(token).max())


def test_position_rows_add_up_to_the_example(tmp_path):
    """Catches positions that are lost or given to another example where one backward serves all."""
    examples = texts(6)
    spans = [[(0, 2), (2, len(it["input_ids"]))] for it in examples]
    index = create(tmp_path / "index")
    done = collector(rows="positions").run(examples, index, spans=spans)
    assert done.rows == 12 and not done.failures
    found = rows(index)
    for example, of_one, expected in zip(examples, spans, collector().sketch(examples)):
        total = np.sum([found[example["id"], span, None] for span in of_one], 0)
        np.testing.assert_allclose(total, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    parts = collector().positions(examples[0], spans[0])
    np.testing.assert_allclose(
        parts, [found[examples[0]["id"], span, None] for span in spans[0]], rtol=1e-3, atol=1e-4 * np.abs(parts).max()
    )
    assert records(index)[0]["settings"]["rows"] == "positions"


def test_spans_that_do_not_fit(tmp_path):
    """Catches spans behind the last token, and examples without any, that make a row of something else."""
    examples = texts(3)
    spans = [[(0, 99)], [], [None]]
    done = collector().run(examples, create(tmp_path / "index"), spans=spans)
    assert [(it["position"], it["reason"]) for it in done.failures] == [(0, "error"), (1, "empty")]
    assert done.rows == 1


def test_lora_only(tmp_path):
    """Catches frozen base weights in the rows of an adapter."""

    class Adapted(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base_layer = base
            self.lora_A = nn.Linear(base.in_features, 2, bias=False)
            self.lora_B = nn.Linear(2, base.out_features, bias=False)

        def forward(self, x):
            return self.base_layer(x) + self.lora_B(self.lora_A(x))

    model = language()
    model.requires_grad_(False)
    model.mix = Adapted(model.mix)
    found = collector(model, lora_only=True)
    assert [name for name, _ in found.parameters] == ["mix.lora_A.weight", "mix.lora_B.weight"]
    example = texts(1)[0]
    gt.next_token_loss(model, gt.pad([example])).sum().backward()
    gradient = {name: dict(model.named_parameters())[name].grad for name, _ in found.parameters}
    expected = gradix.Sketcher(SPEC).sketch(gradient).values
    np.testing.assert_allclose(found.sketch([example])[0], expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_scaled_losses(tmp_path):
    """Catches a scale of the loss that stays in the rows."""
    examples = texts(4)
    expected = collector().sketch(examples)
    found = collector(loss_scale=1024.0).sketch(examples)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(expected).max() > 0.01


def test_losses_of_tokens_are_added():
    """Catches per-token losses of which only one counts, and shapes that are no losses of examples."""
    examples = texts(3)

    def by_token(model, batch):
        logits = model(batch["input_ids"])[:, :-1].transpose(1, 2)
        return nn.functional.cross_entropy(logits, batch["labels"][:, 1:], reduction="none")

    model = language()
    summed = collector(model, loss=lambda model, batch: by_token(model, batch).sum(1)).sketch(examples)
    np.testing.assert_allclose(collector(model, loss=by_token).sketch(examples), summed, rtol=1e-4, atol=1e-5)
    for wrong in (lambda it: it.mean(), lambda it: it.mean(0)):
        with pytest.raises(gt.TapError, match="the loss has the shape"):
            collector(model, loss=lambda model, batch: wrong(by_token(model, batch))).sketch(examples[:2])


def test_first_batch_is_checked():
    """Catches a collector that does not compare its gradients with autograd's, and one that does it each time."""

    class Noisy(Language):
        def forward(self, input_ids, attention_mask=None):
            return super().forward(input_ids) * (1 + 0.5 * torch.rand(()))

    torch.manual_seed(1)
    with pytest.raises(gt.TapError, match="forward is random"):
        collector(Noisy().eval()).sketch(texts(4))
    collector(Noisy().eval(), check=False).sketch(texts(4))
    calls = []

    def loss(model, batch):
        calls.append(1)
        return gt.next_token_loss(model, batch)

    counting = collector(loss=loss)
    counting.sketch(texts(4))
    counting.sketch(texts(4))
    # The check takes one for the sum, and one for the last example.
    assert len(calls) == 4


def test_check_waits_for_a_batch_of_several():
    """Catches a check that is over after a batch of one example, in which no example can be taken for another."""

    class Averaged(Language):
        def forward(self, input_ids, attention_mask=None):
            logits = super().forward(input_ids)
            return logits + logits.mean(0, keepdim=True)

    torch.manual_seed(1)
    calls = []

    def loss(model, batch):
        calls.append(1)
        return gt.next_token_loss(model, batch)

    waiting = collector(Averaged().eval(), loss=loss)
    waiting.sketch(texts(1))
    waiting.sketch(texts(1))
    assert len(calls) == 3
    with pytest.raises(gt.TapError, match="last example"):
        waiting.sketch(texts(4))
    with pytest.raises(gt.TapError, match="batch_rows=1"):
        collector(conditional=True)


def test_gradients_of_the_model_are_left_alone(tmp_path):
    """Catches a collector that adds to `.grad` of the caller's model, or changes what requires gradients."""
    model = language()
    model.mlp.up.weight.requires_grad_(False)
    model.mix.weight.grad = torch.ones(8, 8)
    collector(model).sketch(texts(4))
    assert not model.mlp.up.weight.requires_grad and model.mix.weight.requires_grad
    assert torch.equal(model.mix.weight.grad, torch.ones(8, 8)) and model.tokens.weight.grad is None


def test_progress(tmp_path):
    """Catches progress that does not begin where a run goes on, or end at its total."""
    examples = texts(20)
    seen = []
    index = create(tmp_path / "index")
    collector().run(examples[:8], index)
    collector().run(examples, index, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(8, 20), (16, 20), (20, 20)]


def test_settings_that_are_impossible():
    """Catches words that are taken for something else."""
    for options in ({"rows": "tokens"}, {"on_failure": "ignore"}, {"batch_rows": 0}, {"convention": "jax"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            collector(**options)
