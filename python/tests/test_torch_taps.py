"""Per-example gradients from one backward equal those of each example alone."""

import pytest

torch = pytest.importorskip("torch", reason="SKIPPED: PyTorch is not installed, so gradix.torch is not tested")

import gradix.torch as gt  # noqa: E402
from torch import nn  # noqa: E402
from torch_models import Language, RMSNorm, gradients_alone, square_loss, texts  # noqa: E402


def rows_of(taps, loss, batch, rows):
    """The gradients of the taps by the parameters' own names: `[rows, elements]`."""
    with taps.record(rows) as record:
        loss(taps.model, batch).sum().backward()
    found = {}
    for parameter, _, gradients in record.factors().gradients():
        found.setdefault(parameter.own_name, []).append(gradients)
    return {name: torch.cat(parts) for name, parts in found.items()}


def assert_alone(model, loss, batch, singles, tolerance=1e-5, **options):
    """The gradients of a batch are those of its examples alone, and nothing of the model has changed."""
    before = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    taps = gt.Taps(model, **options)
    rows = rows_of(taps, loss, batch, len(singles))
    assert [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()] == before
    assert not any(module._forward_hooks for module in model.modules())
    alone = gradients_alone(model, list(rows), loss, singles)
    for name, found in rows.items():
        for row, expected in enumerate(alone):
            expected = expected[name].reshape(-1).float()
            difference = (found[row] - expected).norm()
            assert difference <= tolerance * (expected.norm() + 1e-4), (name, row, difference, expected.norm())
    return rows


LAYERS = {
    "linear": (lambda: nn.Linear(5, 4), (3, 7, 5)),
    "linear without positions": (lambda: nn.Linear(5, 4), (3, 5)),
    "linear without bias": (lambda: nn.Linear(5, 4, bias=False), (3, 2, 7, 5)),
    "layer norm": (lambda: nn.LayerNorm(5), (3, 7, 5)),
    "layer norm of two axes": (lambda: nn.LayerNorm((7, 5)), (3, 2, 7, 5)),
    "rms norm": (lambda: RMSNorm(5), (3, 7, 5)),
    "convolution of one axis": (lambda: nn.Conv1d(5, 4, 3, stride=2, padding=1), (3, 5, 9)),
    "convolution of two axes": (lambda: nn.Conv2d(2, 4, (3, 2), dilation=(1, 2), padding="same"), (3, 2, 6, 5)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_a_layer_alone(kind):
    """Catches factors that are transposed, an axis that is summed with another's, and patches in another order."""
    torch.manual_seed(3)
    make, shape = LAYERS[kind]
    model = nn.Sequential(make()).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)
    x = torch.randn(shape)
    rows = assert_alone(model, square_loss, x, list(x.split(1)))
    assert sorted(rows) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("kind", ["convolution of one axis", "convolution of two axes"])
@pytest.mark.parametrize("frames", [None, 3])
def test_convolutions_of_one_example_with_other_axes(kind, frames):
    """Catches frames that are flattened into the batch, or an input without an axis for it, that crash or mix channels."""
    torch.manual_seed(3)
    make, shape = LAYERS[kind]
    model = nn.Sequential(make()).eval()
    one = torch.randn(1, *shape[1:]) if frames is None else torch.randn(1, frames, *shape[1:])
    loss = lambda model, x: square_loss(model, x[0])[None].sum(1)  # noqa: E731
    assert_alone(model, loss, one, [one])


def batch_of(examples):
    return gt.pad(examples), [gt.pad([example]) for example in examples]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("padding_idx", [None, 0])
def test_gradients_of_a_padded_batch(tied, padding_idx):
    """Catches padding that adds to gradients, uses of a layer or of a tied weight that are lost, and position embeddings
    whose one row is taken for one example."""
    torch.manual_seed(1)
    model = Language(tied=tied, padding_idx=padding_idx).eval()
    examples = texts(5)
    assert len({len(example["input_ids"]) for example in examples}) > 1
    rows = assert_alone(model, gt.next_token_loss, *batch_of(examples), tolerance=1e-4)
    assert ("head.weight" in rows) is not tied


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_under_checkpointing(reentrant):
    """Catches layers that are recorded twice, or not at all, where a forward is computed again in the backward."""
    torch.manual_seed(1)
    model = Language(checkpoint=reentrant).eval()
    assert_alone(model, gt.next_token_loss, *batch_of(texts(4)), tolerance=1e-4)


def test_gradients_of_outputs_changed_in_place():
    """Catches a gradient that is recorded behind an activation that overwrites its input."""
    torch.manual_seed(1)
    model = Language(inplace=True).eval()
    assert_alone(model, gt.next_token_loss, *batch_of(texts(4)), tolerance=1e-4)


def test_head_before_embedding():
    """Catches a tied weight whose first layer is the head: there the factors of the embedding change sides."""

    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 11, bias=False)
            self.tokens = nn.Embedding(11, 6)
            self.tokens.weight = self.head.weight

        def forward(self, input_ids, attention_mask=None):
            return self.head(self.tokens(input_ids).cumsum(1))

    torch.manual_seed(1)
    model = Backwards().eval()
    for inputs_first in (False, True):
        taps = gt.Taps(model, inputs_first=inputs_first)
        (parameter,) = taps.parameters
        batch, singles = batch_of(texts(4, vocabulary=11))
        rows = rows_of(taps, gt.next_token_loss, batch, 4)["head.weight"]
        alone = gradients_alone(model, ["head.weight"], gt.next_token_loss, singles)
        for row, gradient in zip(rows, alone):
            gradient = gradient["head.weight"]
            gradient = gradient.t() if inputs_first else gradient
            assert parameter.shape == list(gradient.shape)
            torch.testing.assert_close(row, gradient.reshape(-1), rtol=1e-4, atol=1e-5)


def test_spans_of_positions_add_up():
    """Catches positions that are left out, counted twice, or taken from another example."""
    torch.manual_seed(1)
    model = Language().eval()
    batch, _ = batch_of(texts(3))
    taps = gt.Taps(model)
    with taps.record(3) as record:
        gt.next_token_loss(model, batch).sum().backward()
    factors = record.factors()
    time = batch["input_ids"].shape[1]
    spans = [[(0, 2), (2, time)], [(0, time)], [(0, 1), (1, 2), (2, time)]]
    whole = {parameter.name: gradients for parameter, _, gradients in factors.gradients()}
    for parameter, _, parts in factors.by_spans(spans).gradients():
        expected = whole[parameter.name]
        for example, rows in enumerate([parts[0:2], parts[2:3], parts[3:6]]):
            torch.testing.assert_close(rows.sum(0), expected[example], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="span 2..2 of example 1"):
        factors.by_spans([[(0, 1)], [(2, 2)], [(0, 1)]])


def test_gradients_computed_in_pieces(monkeypatch):
    """Catches rows that are mixed up where a batch's gradients do not fit at once."""
    from gradix.torch import _factors

    torch.manual_seed(1)
    model = Language().eval()
    batch, singles = batch_of(texts(5))
    monkeypatch.setattr(_factors, "CHUNK_ELEMENTS", 200)
    assert_alone(model, gt.next_token_loss, batch, singles, tolerance=1e-4)


def test_selections():
    """Catches patterns that miss a module's parameters, frozen parameters that are taken, and LoRA's that are not."""
    torch.manual_seed(1)
    model = Language()

    def names(**options):
        return [parameter.own_name for parameter in gt.Taps(model, **options).parameters]

    assert names(select="mlp") == ["mlp.up.weight", "mlp.up.bias", "mlp.down.weight"]
    assert names(select=["*.up.weight", "mix"]) == ["mlp.up.weight", "mix.weight", "mix.bias"]
    assert names(select=lambda name: name.endswith("bias")) == ["norm.bias", "mlp.up.bias", "mix.bias"]
    assert names(inputs_first=True) == ["tokens.weight", "places.weight", "mlp.up.weight", "mlp.down.weight", "mix.weight"]
    model.mlp.up.weight.requires_grad_(False)
    assert "mlp.up.weight" not in names()
    assert "mlp.up.weight" in names(frozen=True)
    model.lora_mix = nn.Linear(8, 8)
    assert names(lora_only=True) == ["lora_mix.weight", "lora_mix.bias"]
    with pytest.raises(gt.TapError, match="no parameter is selected"):
        names(select="nothing")


def test_names_of_burn():
    """Catches weights that keep PyTorch's order of axes or names where burn's are asked for."""
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    taps = gt.Taps(model, convention="burn", rename=lambda name: "layers." + name)
    assert [(it.name, it.shape) for it in taps.parameters] == [
        ("layers.0.weight", [3, 2]), ("layers.0.bias", [2]), ("layers.1.gamma", [2]), ("layers.1.beta", [2]),
    ]
    with pytest.raises(gt.TapError, match="two parameters are called 'x'"):
        gt.Taps(model, rename=lambda name: "x")


class Raw(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(4, 4))
        self.out = nn.Linear(4, 4)

    def forward(self, x):
        return self.out(x @ self.table)


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Raw, "table"),
        (lambda: nn.Sequential(Scaled(4, 4)), "computes something else than a Linear"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "BatchNorm1d"),
        (lambda: nn.Sequential(nn.Conv1d(4, 4, 1, groups=2)), "groups"),
        (lambda: nn.Sequential(nn.Embedding(4, 4, max_norm=1.0)), "max_norm"),
        (lambda: nn.MultiheadAttention(4, 2), "in_proj_weight"),
        (lambda: nn.LSTM(4, 4), "weight_ih_l0"),
    ],
)
def test_layers_that_cannot_be_tapped(model, reason):
    """Catches a parameter whose gradient is silently left out, or is that of another function."""
    with pytest.raises(gt.TapError, match=reason):
        gt.Taps(model())


def recorded(model, x, rows, loss=square_loss, **options):
    taps = gt.Taps(model, **options)
    with taps.record(rows) as record:
        loss(model, x).sum().backward()
    return taps, record.factors()


def test_uses_that_cannot_be_recorded():
    """Catches a layer that is never called, one with the examples on another axis, inputs by keyword, and random forwards:
    each would give rows that are wrong."""

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x)

    x = torch.randn(3, 4)
    with pytest.raises(gt.TapError, match="b.weight has no gradient: its layer was not called"):
        recorded(Unused(), x, 3)
    _, factors = recorded(Unused(), x[:1], 1, conditional=True)
    unused = {parameter.own_name: gradients for parameter, _, gradients in factors.gradients()}["b.weight"]
    assert unused.shape == (1, 16) and not unused.any()

    flat = lambda model, x: square_loss(model, x.reshape(-1, 4))  # noqa: E731
    with pytest.raises(gt.TapError, match="first axis of its output has 6 places for a batch of 3"):
        recorded(nn.Sequential(nn.Linear(4, 4)), torch.randn(3, 2, 4), 3, flat)
    one = torch.randn(1, 2, 4)
    assert_alone(nn.Sequential(nn.Linear(4, 4)), lambda model, x: flat(model, x).sum(), one, [one])

    by_keyword = lambda model, x: model[0](input=x).square().sum(1)  # noqa: E731
    with pytest.raises(gt.TapError, match="by position"):
        recorded(nn.Sequential(nn.Linear(4, 4)), x, 3, by_keyword)
    with pytest.raises(gt.TapError, match="call model.eval"):
        recorded(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1)).train(), x, 3)
    recorded(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0)).train(), x, 3)


class GatedRMSNorm(RMSNorm):
    """Takes more than its input."""

    def forward(self, x, gate):
        return super().forward(x) * gate


def test_norms_that_need_more_than_their_input():
    """Catches a norm whose second input is left out in silence, or an error that does not name it."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = GatedRMSNorm(4)

        def forward(self, x):
            return self.norm(x, x.sigmoid())

    model = Gated()
    with pytest.raises(gt.TapError, match="norm: a GatedRMSNorm that needs more than its input"):
        recorded(model, torch.randn(3, 4), 3)
    assert model.norm.weight.requires_grad


def test_parameters_on_several_devices():
    """Catches a model that is spread over devices, which would fail in the middle of a batch."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, device="meta"))
    with pytest.raises(gt.TapError, match="several devices: cpu, meta"):
        gt.Taps(model)
    assert len(gt.Taps(model, select="0").parameters) == 2


def test_hooks_are_gone_after_an_error():
    """Catches hooks, and frozen parameters, that an exception leaves in the caller's model."""
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ZeroDivisionError):
        with gt.Taps(model).record(1):
            1 / 0
    assert not model[0]._forward_hooks and model[0].weight.requires_grad


def test_check_finds_a_use_that_no_tap_sees():
    """Catches a parameter that is also used elsewhere than in its module: half of its gradient would be missing."""

    class Elsewhere(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x) @ self.a.weight

    torch.manual_seed(1)
    model, x = Elsewhere(), torch.randn(3, 4)
    taps, factors = recorded(model, x, 3)
    with pytest.raises(gt.TapError, match="a.weight: the gradients of the taps are not autograd's"):
        taps.check(lambda: square_loss(model, x), factors)
    plain = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    for options in ({}, {"convention": "burn"}):
        taps, factors = recorded(plain, x, 3, **options)
        taps.check(lambda: square_loss(plain, x), factors)


class Transposed(nn.Module):
    """Has time on the first axis."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x):
        return self.mix(x.transpose(0, 1).cumsum(0)).transpose(0, 1)


class Averaged(nn.Module):
    """Mixes the examples of a batch."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x):
        return self.mix(x - x.mean(0, keepdim=True)) - self.mix(x).mean(0, keepdim=True)


class Placed(nn.Module):
    """Embeds positions without an axis of examples."""

    def __init__(self):
        super().__init__()
        self.places = nn.Embedding(8, 4)
        self.mix = nn.Linear(4, 4)

    def forward(self, x):
        return self.mix(x + self.places(torch.arange(x.shape[1]))).cumsum(1)


@pytest.mark.parametrize("kind", [Transposed, Averaged, Placed])
def test_check_finds_rows_of_other_examples(kind):
    """Catches a first axis that happens to be as long as the batch but is another one, and a forward that mixes examples:
    the sum over the rows is right, and each row is wrong."""
    torch.manual_seed(1)
    model, x = kind(), torch.randn(3, 3, 4)
    taps, factors = recorded(model, x, 3)
    with pytest.raises(gt.TapError, match="the gradient of the last example of a batch is not autograd's"):
        taps.check(lambda: square_loss(model, x), factors)
    taps, factors = recorded(model, x[:1], 1)
    assert taps.check(lambda: square_loss(model, x[:1]), factors)


class Experts(nn.Module):
    """Each token goes to one of two experts, which gather theirs from all examples."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        flat = x.reshape(-1, 4)
        chosen, out = (flat[:, 0] > 0).long(), torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            at = (chosen == number).nonzero().squeeze(1)
            if len(at):
                out = out.index_add(0, at, expert(flat[at]))
        return out.view_as(x)


def test_experts_that_gather_as_many_tokens_as_there_are_examples():
    """Catches tokens of an expert that are taken for one of each example."""
    torch.manual_seed(1)
    model, x = Experts(), torch.randn(2, 2, 4)
    x[:, :, 0] = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    with pytest.raises(gt.TapError, match="batch_rows=1"):
        recorded(model, x, 2, conditional=True)
    for one in x.split(1):
        assert_alone(model, square_loss, one, [one], conditional=True)


def test_gradients_of_bfloat16():
    """Catches factors that are multiplied in the narrow type, and gradients that are not given in float32."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).bfloat16().eval()
    x = torch.randn(3, 9, 6).bfloat16()
    rows = assert_alone(model, square_loss, x, list(x.split(1)), tolerance=0.03)
    assert all(gradients.dtype == torch.float32 for gradients in rows.values())


class Shrunk(torch.autograd.Function):
    """The identity, whose gradient is 2^-30 of what comes back, as deep layers have it."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2.0**-30


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_check_of_a_scaled_loss(dtype):
    """Catches a check that leaves out the scale of the loss: its own gradients are zero in float16. Catches one that
    compares scaled gradients with others, too."""
    torch.manual_seed(1)
    model, x = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)).eval().to(dtype), torch.randn(3, 6).to(dtype)
    try:
        model(x)
    except RuntimeError:
        pytest.skip("SKIPPED: this PyTorch multiplies no float16 on the CPU")
    loss = lambda model, x: Shrunk.apply(model(x)).sum(1)  # noqa: E731
    taps, scale = gt.Taps(model), 2.0**15
    with taps.record(3, scale) as record:
        (loss(model, x).sum() * scale).backward()
    factors = record.factors()
    assert all(gradients.any() for _, _, gradients in factors.gradients())
    assert taps.check(lambda: loss(model, x), factors)


def test_taps_of_huggingface():
    """Catches layers of GPT-2 and Llama that are not known or not seen: `Conv1D`, RMS norms, rotary attention."""
    transformers = pytest.importorskip("transformers", reason="SKIPPED: transformers is not installed")
    torch.manual_seed(1)
    gpt2 = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=23, n_positions=32, n_embd=8, n_layer=2, n_head=2)
    )
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=23, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1,
        )
    )
    for model in (gpt2, llama):
        rows = assert_alone(model.eval(), gt.next_token_loss, *batch_of(texts(4)), tolerance=1e-3)
        assert len(rows) == len(list(model.named_parameters()))
