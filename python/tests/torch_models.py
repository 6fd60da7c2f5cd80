"""Small models for the tests of gradix.torch, and their gradients by autograd, one example at a time."""

import torch
from torch import nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """As Llama has it."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)
        self.variance_epsilon = 1e-6

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


class ShiftedRMSNorm(RMSNorm):
    """As Gemma has it."""

    def forward(self, x):
        return (1 + self.weight) * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x):
        return x + self.down(torch.tanh(self.up(x)))


class Language(nn.Module):
    """A causal model with positions, norms of several kinds, a layer that is called twice, and a tied head."""

    def __init__(self, vocabulary=23, width=8, tied=True, padding_idx=None, checkpoint=None, inplace=False):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width, padding_idx=padding_idx)
        self.places = nn.Embedding(32, width)
        self.norm = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.rms = RMSNorm(width)
        self.shifted = ShiftedRMSNorm(width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.checkpoint = checkpoint
        self.inplace = inplace
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, input_ids, attention_mask=None):
        from torch.utils.checkpoint import checkpoint

        # One row of positions for the whole batch, as GPT-2 has it.
        x = self.tokens(input_ids) + self.places(torch.arange(input_ids.shape[1])[None, :])
        for _ in range(2):
            if self.checkpoint is None:
                x = self.mlp(self.norm(x))
            else:
                x = checkpoint(lambda x: self.mlp(self.norm(x)), x, use_reentrant=self.checkpoint)
        x = self.rms(x)
        # A causal mean over positions.
        mean = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[None, :, None]
        y = self.mix(mean)
        x = x + (y.relu_() if self.inplace else y.relu())
        return self.head(self.shifted(x))


def texts(count, vocabulary=23, seed=1):
    """Examples of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        tokens = int(torch.randint(3, 12, (), generator=generator))
        ids = torch.randint(1, vocabulary, (tokens,), generator=generator).tolist()
        labels = [-100, *ids[1:]]
        made.append({"id": f"text {number}", "input_ids": ids, "labels": labels, "source": f"s{number % 3}"})
    return made


def gradients_alone(model, parameters, loss, batches):
    """The gradients of the losses of batches of one example: a list of dicts by name."""
    named = dict(model.named_parameters())
    found = []
    for batch in batches:
        model.zero_grad(set_to_none=True)
        loss(model, batch).sum().backward()
        gradients = {name: named[name].grad for name in parameters}
        found.append({name: torch.zeros_like(named[name]) if it is None else it for name, it in gradients.items()})
    model.zero_grad(set_to_none=True)
    return found


def square_loss(model, x):
    """A loss of any output."""
    return model(x).float().flatten(1).square().sum(1)
