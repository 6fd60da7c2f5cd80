"""The sums of a block's rows and the query divided by them, written from curvature.md alone.

f32 steps are numpy's; everything in f64 is Python's floats, whose fused multiply-add is made of fractions: slow,
and right.
"""

import math
from fractions import Fraction

import numpy as np

import arithmetic


class Refused(Exception):
    """Sums, or arguments, that have no curvature."""


def fma(a, b, c):
    """a * b + c in f64, rounded once."""
    return float(Fraction(a) * Fraction(b) + Fraction(c))


def groups(dims, width):
    """The dims of each group of neighbours."""
    size = -(-dims // width)
    return [range(start, min(start + size, dims)) for start in range(0, dims, size)]


class Sums:
    """The sums of one block; `width` is None for the full triangle."""

    def __init__(self, dims, width=None):
        self.dims, self.width = dims, width
        self.rows, self.power = 0, 0.0
        count = dims * (dims + 1) // 2 if width is None else dims * len(groups(dims, width))
        self.values = np.zeros(count)

    def add(self, rows, sign=1):
        """[n, dims] of f32."""
        run = min(256, max(1, (1 << 24) // self.dims))
        for start in range(0, len(rows), run):
            self.add_run(np.asarray(rows[start : start + run], np.float32), sign)

    def add_run(self, rows, sign):
        wide = rows.astype(np.float64)
        lanes = arithmetic.in_lanes(wide * wide)
        sums = np.zeros((len(rows), arithmetic.LANES))
        for step in range(lanes.shape[1]):
            sums = sums + lanes[:, step]
        for power in arithmetic.halve(sums).tolist():
            self.rows += sign
            self.power += sign * power
        largest = float(np.abs(rows).max())
        e = max(-126, min(126, math.frexp(largest)[1] - 1)) if largest else -126
        scaled = rows * np.float32(2.0**-e)
        if self.width is None:
            other = scaled
        else:
            other = np.stack([self.nested(scaled[:, list(group)]) for group in groups(self.dims, self.width)], axis=1)
        acc = np.zeros((self.dims, other.shape[1]), np.float32)
        for f, g in zip(scaled, other):
            acc = arithmetic.fma(np.repeat(f[:, None], len(g), 1), np.repeat(g[None, :], len(f), 0), acc)
        products = acc.astype(np.float64) * 2.0 ** (2 * e)
        kept = products[np.tril_indices(self.dims)] if self.width is None else products.reshape(-1)
        self.values = self.values + sign * kept

    @staticmethod
    def nested(group):
        lanes = arithmetic.in_lanes(group)
        sums = np.zeros((len(group), arithmetic.LANES), np.float32)
        for step in range(lanes.shape[1]):
            sums = sums + lanes[:, step]
        return arithmetic.halve(sums)

    def at(self, i, j):
        """The element (i, j) of the full sums."""
        i, j = max(i, j), min(i, j)
        return float(self.values[i * (i + 1) // 2 + j])


def add_scaled(by, values, sums):
    """sums[j] = fma(by, values[j], sums[j])."""
    return [fma(by, value, total) for value, total in zip(values, sums)]


def cholesky(a, least):
    """L, as rows; None if a pivot is not above its bound."""
    n = len(a)
    lower = [[0.0] * n for _ in range(n)]
    for j in range(n):
        for i in range(j, n):
            s = a[i][j]
            for k in range(j):
                s = fma(-lower[i][k], lower[j][k], s)
            if i > j:
                lower[i][j] = s / lower[j][j]
            elif s > least[j]:
                lower[j][j] = math.sqrt(s)
            else:
                return None
    return lower


def forward(lower, q):
    y = []
    for i, row in enumerate(lower):
        s = q[i]
        for k in range(i):
            s = fma(-row[k], y[k], s)
        y.append(s / row[i])
    return y


def backward(lower, y):
    n = len(lower)
    x = [0.0] * n
    for i in range(n - 1, -1, -1):
        s = y[i]
        for k in range(n - 1, i, -1):
            s = fma(-lower[k][i], x[k], s)
        x[i] = s / lower[i][i]
    return x


def plain_dot(a, b):
    total = 0.0
    for x, y in zip(a, b):
        total += x * y
    return total


def fused_dot(a, b):
    total = 0.0
    for x, y in zip(a, b):
        total = fma(x, y, total)
    return total


def tridiagonal(a):
    n = len(a)
    a = [row[:] for row in a]
    d, e, steps = [], [], []
    for k in range(n):
        d.append(a[k][k])
        v = a[k][k + 1 :]
        z = plain_dot(v, v)
        if not v or z == 0:
            e.append(0.0)
            continue
        h, f = math.sqrt(z), v[0]
        e.append(-h if f > 0 else h)
        v[0] = f + h if f > 0 else f - h
        c = 1 / (z + abs(f) * h)
        w = [0.0] * len(v)
        for i, by in enumerate(v):
            w = add_scaled(by, a[k + 1 + i][k + 1 :], w)
        w = [x * c for x in w]
        g = plain_dot(w, v) * c / 2
        w = add_scaled(-g, v, w)
        for i in range(len(v)):
            row = add_scaled(-v[i], w, a[k + 1 + i][k + 1 :])
            a[k + 1 + i][k + 1 :] = add_scaled(-w[i], v, row)
        steps.append((k, v, c))
    q = [[float(i == j) for j in range(n)] for i in range(n)]
    for k, v, c in reversed(steps):
        p = [0.0] * len(v)
        for i, by in enumerate(v):
            p = add_scaled(by, q[k + 1 + i][k + 1 :], p)
        for i, by in enumerate(v):
            q[k + 1 + i][k + 1 :] = add_scaled(-(by * c), p, q[k + 1 + i][k + 1 :])
    return d, e, q


def eigen(a):
    """Eigenvalues and eigenvectors, by descending value."""
    d, e, q = tridiagonal(a)
    n = len(d)
    small = 2.0**-52 * max(abs(x) + abs(y) for x, y in zip(d, e))
    for l in range(n):
        for step in range(31):
            m = next(m for m in range(l, n) if m == n - 1 or abs(e[m]) <= small)
            if m == l:
                break
            if step == 30:
                raise Refused("not converged")
            x = (d[l + 1] - d[l]) / (2 * e[l])
            h = math.sqrt(x * x + 1)
            g = d[m] - d[l] + e[l] / (x - h if x < 0 else x + h)
            s, c, p = 1.0, 1.0, 0.0
            for i in range(m - 1, l - 1, -1):
                f, b = s * e[i], c * e[i]
                h = math.sqrt(f * f + g * g)
                e[i + 1] = h
                if h == 0:
                    d[i + 1] -= p
                    e[m] = 0.0
                    break
                s, c = f / h, g / h
                g = d[i + 1] - p
                h = (d[i] - g) * s + 2 * c * b
                p = s * h
                d[i + 1] = g + p
                g = c * h - b
                for row in q:
                    x, y = row[i], row[i + 1]
                    row[i], row[i + 1] = fma(c, x, -(s * y)), fma(s, x, c * y)
            else:
                d[l] -= p
                e[l] = g
                e[m] = 0.0
    order = sorted(range(n), key=lambda i: -d[i])
    return [d[i] for i in order], [[row[i] for row in q] for i in order]


class Factor:
    """(F + lambda I)^-1."""

    def __init__(self, sums, kappa, rank=None):
        if not (math.isfinite(kappa) and kappa > 0):
            raise Refused("kappa")
        if rank == 0:
            raise Refused("rank")
        if sums.rows == 0:
            raise Refused("no rows")
        if not (math.isfinite(sums.power) and np.isfinite(sums.values).all()):
            raise Refused("not finite")
        if sums.power < 0:
            raise Refused("not positive")
        self.mean = sums.power / sums.rows
        self.r = kappa / sums.rows
        self.lam = self.r * self.mean
        self.is_zero = sums.power == 0
        self.lower = self.vectors = None
        self.effective_dims = 0.0
        if self.is_zero:
            return
        dims = sums.dims
        if sums.width is None and (rank is None or rank >= dims):
            a = [[sums.at(i, j) / sums.power for j in range(i + 1)] for i in range(dims)]
            for i in range(dims):
                a[i][i] += self.r
            self.lower = cholesky(a, [0.0] * dims)
            if self.lower is None:
                raise Refused("not positive")
            trace = 0.0
            for c in range(dims):
                y = forward(self.lower, [float(i == c) for i in range(dims)])
                trace += plain_dot(y, y)
            self.effective_dims = dims - self.r * trace
        else:
            self.approximate(sums, 256 if rank is None else rank)

    def approximate(self, sums, rank):
        dims = sums.dims
        if sums.width is None:
            parts = groups(dims, max(512, 2 * rank))
            c = []
            for i in range(dims):
                row = []
                for part in parts:
                    total = 0.0
                    for j in part:
                        total += sums.at(i, j)
                    row.append(total / sums.power)
                c.append(row)
        else:
            parts = groups(dims, sums.width)
            c = (sums.values.reshape(dims, len(parts)) / sums.power).tolist()
        n = len(parts)
        h = []
        for part in parts:
            total = [0.0] * n
            for i in part:
                total = [x + y for x, y in zip(total, c[i])]
            h.append(total)
        core = [[(h[a][b] + h[b][a]) / 2 for b in range(n)] for a in range(n)]
        t = 0.0
        for a, part in enumerate(parts):
            t += core[a][a] / len(part)
        nu, lower = t * 2.0**-40, None
        while lower is None:
            if not 0 < nu <= self.r:
                raise Refused("not positive")
            shifted = [row[:] for row in core]
            for a, part in enumerate(parts):
                shifted[a][a] += nu * len(part)
            lower = cholesky(shifted, [0.9375 * nu * len(part) for part in parts])
            nu = nu if lower else 4 * nu
        b = []
        for a, part in enumerate(parts):
            for i in part:
                row = c[i][:]
                row[a] += nu
                b.append(forward(lower, row))
        columns = [[row[a] for row in b] for a in range(n)]
        gram = [[0.0] * n for _ in range(n)]
        for i in range(n):
            for j in range(i + 1):
                gram[i][j] = gram[j][i] = fused_dot(columns[i], columns[j])
        values, vectors = eigen(gram)
        theta = [max(value - nu, 0.0) for value in values]
        kept = 0
        while kept < min(rank, n) and theta[kept] > 0:
            kept += 1
        self.rest = self.r + (theta[kept] if kept < n else 0.0)
        self.weights = [1 / (theta[i] + self.r) - 1 / self.rest for i in range(kept)]
        self.vectors = [[fused_dot(row, vectors[i]) / math.sqrt(values[i]) for row in b] for i in range(kept)]
        for x in theta:
            self.effective_dims += x / (x + self.r)

    def precondition(self, q):
        q = [float(x) for x in q]
        if self.is_zero:
            return q
        if self.lower is not None:
            x = backward(self.lower, forward(self.lower, q))
        else:
            x = [value / self.rest for value in q]
            for u, w in zip(self.vectors, self.weights):
                x = add_scaled(fused_dot(q, u) * w, u, x)
        return [value / self.mean for value in x]

    def self_influence(self, g):
        g = [float(x) for x in g]
        if self.is_zero:
            return plain_dot(g, g)
        if self.lower is not None:
            y = forward(self.lower, g)
            return plain_dot(y, y) / self.mean
        total = plain_dot(g, g) / self.rest
        for u, w in zip(self.vectors, self.weights):
            p = fused_dot(g, u)
            total += p * p * w
        return total / self.mean
