#!/usr/bin/env python3
"""What RapidIn (arXiv:2405.11724) does to a gradient before it is stored, in PyTorch on the CPU: 20 rounds, each of
which permutes the rows of the vector as a matrix and the columns of another, so 40 passes; then random signs, and
the sum of each run of d / K elements. Written from the paper's text.

    bench-shuffle.py ELEMENTS DIMS RUNS

Prints the seconds of the fastest run. Permutations and signs are made before, and each pass writes into a buffer
that is there, so that nothing but the passes is timed.
"""

import sys
import time

import torch

ROUNDS = 20


def shape(elements, round_):
    """Rows and columns of a round's matrix: near to square, and another one each time."""
    rows = 1 << (elements.bit_length() // 2 - round_ % 4)
    return rows, elements // rows


def main():
    elements, dims, runs = (int(argument) for argument in sys.argv[1:4])
    if elements & (elements - 1) or dims & (dims - 1) or dims > elements:
        sys.exit("elements and dims must be powers of two, dims not above elements")
    generator = torch.Generator().manual_seed(7)
    gradient = torch.randn(elements, generator=generator)
    plan = []
    for round_ in range(ROUNDS):
        rows, _ = shape(elements, round_)
        _, columns = shape(elements, round_ + 1)
        plan.append((torch.randperm(rows, generator=generator), torch.randperm(columns, generator=generator)))
    signs = torch.randint(0, 2, (elements,), generator=generator).to(torch.float32).mul_(2).sub_(1)
    buffers = [torch.empty(elements), torch.empty(elements)]

    def sketch():
        source = gradient
        target = 0
        for round_, (by_row, by_column) in enumerate(plan):
            for axis, order, (rows, columns) in (
                (0, by_row, shape(elements, round_)),
                (1, by_column, shape(elements, round_ + 1)),
            ):
                into = buffers[target].view(rows, columns)
                torch.index_select(source.view(rows, columns), axis, order, out=into)
                source, target = buffers[target], 1 - target
        return (source * signs).view(dims, elements // dims).sum(1)

    sketch()
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        sketch()
        best = min(best, time.perf_counter() - start)
    print(best)


main()
