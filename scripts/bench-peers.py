"""Measures other programs on the data of one case of benches/scan: exhaustive search, best of several runs.

    bench-peers.py FOLDER TABLE             every peer, each in a process of its own; lines go to TABLE
    bench-peers.py --peer NAME FOLDER       one peer; prints a JSON object for each measurement

FOLDER holds case.json, vectors.f16, queries.f32 and truth.u32. Every peer has the same threads and
the numbers of vectors.f16 in the form that it likes best. Warm is with all of it in memory; cold is
from the file, whose pages were dropped: reading it through for those who map it, loading and one
query for the others. Resident memory is what no file backs.

What would take longer than GRADIX_BENCH_PEER_SECONDS (12) for one search, or does not fit into memory, has
a line without seconds. Their speed does not depend on the numbers: of large Gaussian cases less is
measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator

THREADS = len(os.sched_getaffinity(0))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(THREADS)

import numpy as np  # noqa: E402  (it reads the number of threads when it is imported)

BATCHES = (1, 10, 64, 100)
KS = (10, 100)
RUNS = 5
ENOUGH_SECONDS = 1.5
# The approximate maximum seconds of all searches of a peer in one case.
BUDGET_SECONDS = 20.0
LIMIT_SECONDS = float(os.environ.get("GRADIX_BENCH_PEER_SECONDS") or 12)
# A case with more bytes is large; and a peer may take this share of the memory that is free.
LARGE_BYTES = 2 << 30
MEMORY_SHARE = 0.9
# A peer without output for this many seconds is stopped.
SILENT_SECONDS = 180
# Numbers that are converted at once.
BLOCK = 8 << 20


@dataclass
class Case:
    """The data of one case."""

    folder: Path
    data: str
    rows: int
    dims: int

    @classmethod
    def read(cls, folder: Path) -> Case:
        about = json.loads((folder / "case.json").read_text())
        return cls(folder, about["data"], about["rows"], about["dims"])

    @property
    def path(self) -> Path:
        return self.folder / "vectors.f16"

    def vectors(self) -> np.ndarray:
        return np.memmap(self.path, dtype="<f2", mode="r", shape=(self.rows, self.dims))

    def queries(self) -> np.ndarray:
        return np.fromfile(self.folder / "queries.f32", dtype="<f4").reshape(-1, self.dims)

    def truth(self) -> np.ndarray:
        return np.fromfile(self.folder / "truth.u32", dtype="<u4").reshape(-1, 100)

    def each_block(self, work: Callable[[slice, np.ndarray], None]) -> None:
        """Calls `work` with all vectors, some at once, on all threads, with their positions."""
        vectors = self.vectors()
        step = max(1, BLOCK // self.dims)
        places = [slice(start, min(start + step, self.rows)) for start in range(0, self.rows, step)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda place: work(place, vectors[place]), places))

    def sample(self) -> np.ndarray:
        """About a thousand vectors, evenly spaced, as f32."""
        return self.vectors()[:: max(1, self.rows // 1024)].astype(np.float32)

    def drop_pages(self) -> None:
        """Drops the file's pages from the page cache, if the system allows it."""
        with open(self.path, "rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    @property
    def is_large(self) -> bool:
        return self.rows * self.dims * 2 > LARGE_BYTES


def best_rows(scores: np.ndarray, k: int) -> np.ndarray:
    """The columns of the k highest scores of each row, highest first."""
    k = min(k, scores.shape[1])
    found = np.argpartition(scores, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(scores, found, axis=1), axis=1)
    return np.take_along_axis(found, order, axis=1)


def quantised(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bytes and a scale for each row."""
    numbers = numbers.astype(np.float32)
    scales = np.maximum(np.abs(numbers).max(axis=1, keepdims=True), 1e-30) / 127
    return np.rint(numbers / scales).astype(np.int8), scales.astype(np.float32)


class Peer:
    """A way to search. `code_bytes` are those that it reads for each number."""

    encoding = "f32"
    code_bytes = 4
    # Whether the file itself is searched, and nothing is loaded.
    mapped = False

    def __init__(self, case: Case) -> None:
        self.case = case

    def load(self) -> None:
        raise NotImplementedError

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        raise NotImplementedError


class NumpyMapped(Peer):
    """Blocks of the mapped file are made f32 and multiplied by BLAS."""

    encoding, code_bytes, mapped = "f16", 2, True

    def load(self) -> None:
        self.pool = ThreadPoolExecutor(THREADS)
        rows = max(1, BLOCK // 4 // self.case.dims // THREADS) * THREADS
        self.block = np.empty((rows, self.case.dims), np.float32)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        vectors = self.case.vectors()
        scores = np.empty((len(queries), self.case.rows), np.float32)
        for start in range(0, self.case.rows, len(self.block)):
            part = vectors[start : start + len(self.block)]
            block = self.block[: len(part)]
            # numpy makes f32 of f16 slowly, and on one thread unless it is helped.
            list(self.pool.map(np.copyto, np.array_split(block, THREADS), np.array_split(part, THREADS)))
            np.matmul(queries, block.T, out=scores[:, start : start + len(part)])
        return best_rows(scores, k)


class Numpy(Peer):
    """All vectors as f32 in memory, BLAS."""

    def load(self) -> None:
        self.vectors = np.empty((self.case.rows, self.case.dims), np.float32)
        self.case.each_block(self.vectors.__setitem__)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        if len(queries) == 1:
            return best_rows((self.vectors @ queries[0])[None, :], k)
        return best_rows(queries @ self.vectors.T, k)


class Torch(Peer):
    """All vectors in memory as one of torch's types, its matrix product, its topk."""

    def load(self) -> None:
        import torch

        torch.set_num_threads(THREADS)
        self.torch = torch
        self.type = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[self.encoding]
        self.vectors = torch.empty((self.case.rows, self.case.dims), dtype=self.type)

        def fill(place: slice, block: np.ndarray) -> None:
            self.vectors[place] = torch.from_numpy(np.array(block))

        self.case.each_block(fill)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        asked = self.torch.from_numpy(queries).to(self.type)
        with self.torch.inference_mode():
            if len(queries) == 1:
                scores = self.torch.mv(self.vectors, asked[0])[None, :]
            elif self.encoding == "f32":
                scores = (self.vectors @ asked.T).T.contiguous()
            else:
                scores = asked @ self.vectors.T
            return self.torch.topk(scores.float(), min(k, self.case.rows), dim=1).indices.numpy()


class TorchF16(Torch):
    encoding, code_bytes = "f16", 2


class TorchBf16(Torch):
    encoding, code_bytes = "bf16", 2


class TorchI8(Peer):
    """Bytes with a scale for each vector and query, and torch's integer product."""

    encoding, code_bytes = "i8", 1

    def load(self) -> None:
        import torch

        torch.set_num_threads(THREADS)
        self.torch = torch
        self.vectors = torch.empty((self.case.rows, self.case.dims), dtype=torch.int8)
        self.scales = torch.empty((self.case.rows,))

        def fill(place: slice, block: np.ndarray) -> None:
            codes, scales = quantised(block)
            self.vectors[place] = torch.from_numpy(codes)
            self.scales[place] = torch.from_numpy(scales[:, 0])

        self.case.each_block(fill)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        codes, _ = quantised(queries)
        with self.torch.inference_mode():
            products = self.torch._int_mm(self.vectors, self.torch.from_numpy(codes).T)
            scores = products.T.float().mul_(self.scales)
            return self.torch.topk(scores, min(k, self.case.rows), dim=1).indices.numpy()


class Faiss(Peer):
    """A flat index of faiss, its codes written in place so that memory never holds them twice."""

    def make(self, faiss: Any) -> Any:
        return faiss.IndexFlatIP(self.case.dims)

    def codes(self, block: np.ndarray) -> np.ndarray:
        return block.astype(np.float32).view(np.uint8)

    def load(self) -> None:
        import faiss

        faiss.omp_set_num_threads(THREADS)
        self.index = self.make(faiss)
        bytes_a_row = self.index.code_size
        self.index.codes.resize(self.case.rows * bytes_a_row)
        codes = faiss.rev_swig_ptr(self.index.codes.data(), self.case.rows * bytes_a_row)
        codes = codes.reshape(self.case.rows, bytes_a_row)
        self.case.each_block(lambda place, block: codes.__setitem__(place, self.codes(block)))
        self.index.ntotal = self.case.rows

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        return self.index.search(queries, min(k, self.case.rows))[1]


class FaissF16(Faiss):
    """The scalar quantiser of two bytes; its codes are the halves themselves."""

    encoding, code_bytes = "f16", 2

    def make(self, faiss: Any) -> Any:
        quantiser, metric = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexScalarQuantizer(self.case.dims, quantiser, metric)
        index.is_trained = True
        return index

    def codes(self, block: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(block).view(np.uint8)


class FaissI8(Faiss):
    """The scalar quantiser of a byte, trained on a part of the vectors."""

    encoding, code_bytes = "i8", 1

    def make(self, faiss: Any) -> Any:
        quantiser, metric = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        self.quantiser = faiss.IndexScalarQuantizer(self.case.dims, quantiser, metric)
        self.quantiser.train(self.case.sample())
        return self.quantiser

    def codes(self, block: np.ndarray) -> np.ndarray:
        return self.quantiser.sa_encode(block.astype(np.float32))


class Usearch(Peer):
    """Exact search of usearch over f32 in memory."""

    def load(self) -> None:
        self.vectors = np.empty((self.case.rows, self.case.dims), np.float32)
        self.case.each_block(self.vectors.__setitem__)

    def asked(self, queries: np.ndarray) -> np.ndarray:
        return queries

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        from usearch.index import MetricKind, search

        queries = self.asked(queries)
        k = min(k, self.case.rows)
        found = search(self.vectors, queries, k, MetricKind.IP, exact=True, threads=THREADS)
        return np.asarray(found.keys).reshape(len(queries), -1)


class UsearchF16(Usearch):
    """Over the mapped file."""

    encoding, code_bytes, mapped = "f16", 2, True

    def load(self) -> None:
        pass

    def asked(self, queries: np.ndarray) -> np.ndarray:
        self.vectors = self.case.vectors()
        return queries.astype(np.float16)


class UsearchI8(Usearch):
    """Over bytes; without scales per vector, so there is one for all vectors."""

    encoding, code_bytes = "i8", 1

    def load(self) -> None:
        factor = np.float32(127 / np.abs(self.case.sample()).max())
        self.vectors = np.empty((self.case.rows, self.case.dims), np.int8)

        def fill(place: slice, block: np.ndarray) -> None:
            codes = block.astype(np.float32)
            codes *= factor
            np.rint(codes, out=codes)
            self.vectors[place] = np.clip(codes, -127, 127, out=codes)

        self.case.each_block(fill)

    def asked(self, queries: np.ndarray) -> np.ndarray:
        return quantised(queries)[0]


PEERS: dict[str, type[Peer]] = {
    "numpy-mapped": NumpyMapped,
    "numpy": Numpy,
    "torch": Torch,
    "torch-f16": TorchF16,
    "torch-bf16": TorchBf16,
    "torch-int8": TorchI8,
    "faiss-flat": Faiss,
    "faiss-sqfp16": FaissF16,
    "faiss-sq8": FaissI8,
    "usearch": Usearch,
    "usearch-f16": UsearchF16,
    "usearch-i8": UsearchI8,
}


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


class Watch:
    """The peak of anonymous memory, sampled by a thread."""

    def __init__(self) -> None:
        self.before = self.peak = anonymous_bytes()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self.peak = max(self.peak, anonymous_bytes())
            time.sleep(0.05)

    def megabytes(self) -> float:
        self.peak = max(self.peak, anonymous_bytes())
        return (self.peak - self.before) / 1e6


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def measure(name: str, case: Case) -> None:
    """Measures one peer; prints one object for each measurement."""
    queries, truth = case.queries(), case.truth()
    peer = PEERS[name](case)
    # What it imports counts for nothing, what it holds does.
    for module in {"torch": ["torch"], "faiss": ["faiss"], "usearch": ["usearch.index"]}.get(name.split("-")[0], []):
        __import__(module)
    watch = Watch()

    def report(batch: int, k: int, warm: bool, seconds: float, found: np.ndarray) -> None:
        hits = sum(len(set(map(int, row)) & set(map(int, best[:k]))) for row, best in zip(found, truth))
        code_bytes = peer.code_bytes if warm else 2
        line = {
            "batch": batch,
            "k": k,
            "warm": int(warm),
            "seconds": seconds,
            "bytes": case.rows * case.dims * code_bytes,
            "resident_mb": watch.megabytes(),
            "recall": hits / (batch * min(k, case.rows)),
        }
        print(json.dumps(line), flush=True)

    case.drop_pages()
    loading, _ = seconds_of(peer.load)
    first, found = seconds_of(lambda: peer.search(queries[:1], KS[0]))
    report(1, KS[0], False, loading + first, found)

    took: list[tuple[int, float]] = []
    searching = 0.0
    for k in KS[:1] if case.is_large and case.data == "gaussian" else KS:
        for batch in BATCHES:
            note = None
            expected = extrapolated(took, batch)
            if searching > BUDGET_SECONDS:
                note = f"its {BUDGET_SECONDS:.0f} s are over"
            elif expected > LIMIT_SECONDS:
                note = f"it would take about {expected:.0f} s"
            if note:
                print(json.dumps({"batch": batch, "k": k, "note": note}), flush=True)
                continue
            best, spent = float("inf"), 0.0
            for run in range(RUNS):
                if run >= 1 and spent > (ENOUGH_SECONDS if run >= 2 else LIMIT_SECONDS / 3):
                    break
                seconds, found = seconds_of(lambda: peer.search(queries[:batch], k))
                best, spent = min(best, seconds), spent + seconds
            searching += spent
            report(batch, k, True, best, found)
            if k == KS[0]:
                took.append((batch, best))


def extrapolated(took: list[tuple[int, float]], batch: int) -> float:
    """What a batch will take: as before, or on the line through the last two; 0 if nothing tells."""
    before = dict(took).get(batch)
    if before is not None or len(took) < 2:
        return before or 0.0
    (fewer, less), (more, longer) = took[-2:]
    return longer + max(longer - less, 0.0) / (more - fewer) * (batch - more)


def free_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def roof(table: Path, case: Case, system: str) -> float | None:
    """Bytes a second of memory or disk, as gradix's benchmark found them for this case."""
    with open(table, newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["system"] == system]
    wanted = (case.data, str(case.rows), str(case.dims))
    here = [line for line in lines if (line["data"], line["rows"], line["dims"]) == wanted] or lines
    return max((float(line["bytes"]) / float(line["seconds"]) for line in here), default=None)


def run_all(case: Case, table: Path, chosen: list[str]) -> None:
    """Runs the peers one after the other and adds their lines to the table."""
    roofs = {1: roof(table, case, "memory-read"), 0: roof(table, case, "disk-read")}
    with open(table, newline="") as file:
        columns = next(csv.reader(file))
    with open(table, "a", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")

        def add(name: str, **given: Any) -> None:
            common = {"data": case.data, "rows": case.rows, "dims": case.dims}
            writer.writerow({**common, "encoding": PEERS[name].encoding, "system": name, **given})
            file.flush()

        def left_out(name: str, why: str, batch: int = 1, k: int = KS[0]) -> None:
            print(f"{name}, batch {batch}: not measured, {why}", file=sys.stderr)
            add(name, batch=batch, k=k, warm=1)

        for name in chosen:
            need = 0 if PEERS[name].mapped else case.rows * case.dims * PEERS[name].code_bytes
            if need > MEMORY_SHARE * free_bytes():
                left_out(name, f"{need / 1e9:.1f} GB do not fit into memory")
                continue
            started = time.monotonic()
            for found in measured(name, case):
                if "note" in found:
                    left_out(name, found["note"], found.get("batch", 1), found.get("k", KS[0]))
                    continue
                over = roofs[found["warm"]]
                if over:
                    found["roof_share"] = f"{found['bytes'] / found['seconds'] / over:.3f}"
                for column, digits in (("seconds", 6), ("resident_mb", 1), ("recall", 4)):
                    found[column] = f"{found[column]:.{digits}f}"
                add(name, **found)
            print(f"{case.data} {case.rows} x {case.dims}: {name} in {time.monotonic() - started:.0f} s", file=sys.stderr)


def measured(name: str, case: Case) -> Iterator[dict[str, Any]]:
    """What a process of its own measures, as it comes; a peer that fails or hangs gets a note."""
    command = [sys.executable, __file__, "--peer", name, str(case.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        heard = time.monotonic()
        done = threading.Event()

        def stop_if_silent() -> None:
            while not done.wait(1):
                if time.monotonic() - heard > SILENT_SECONDS:
                    process.kill()

        threading.Thread(target=stop_if_silent, daemon=True).start()
        for line in process.stdout:
            heard = time.monotonic()
            if line.startswith("{"):
                yield json.loads(line)
        status = process.wait()
        done.set()
    if status != 0:
        yield {"note": f"it ended with status {status}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("table", type=Path, nargs="?")
    parser.add_argument("--peer", choices=PEERS)
    options = parser.parse_args()
    case = Case.read(options.folder)
    if options.peer:
        measure(options.peer, case)
        return
    if options.table is None:
        parser.error("a table is needed")
    names = os.environ.get("GRADIX_BENCH_PEER_NAMES")
    run_all(case, options.table, names.split(",") if names else list(PEERS))


if __name__ == "__main__":
    main()
