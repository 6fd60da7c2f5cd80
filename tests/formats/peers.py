"""Writes files of vectors as numpy, pyarrow and safetensors write them, and reads what gradix wrote.

    peers.py make FOLDER    writes files, and cases.json, which says what is in each
    peers.py wrong FOLDER   writes files that cannot be rows, and cases.json, which says what errors must say
    peers.py check FOLDER   reads the files that FOLDER/written.json names, and compares them with what it says
"""

import json
import pathlib
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.numpy

ROWS = 23
folder = pathlib.Path(sys.argv[2])
cases = []


def vectors(seed, dims, dtype="<f4", rows=ROWS):
    """Numbers of many magnitudes, that are exact in the type."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((rows, dims)) * 10.0 ** random.integers(-6, 4, (rows, dims))
    values[:, 0] = 0.0
    return values.astype(dtype)


def exact(array):
    return np.asarray(array).astype("<f4")


def bf16(array):
    """The upper halves, as bytes, and the numbers that they are."""
    halves = (np.asarray(array, "<f4").view("<u4") >> 16).astype("<u2")
    return halves, (halves.astype("<u4") << 16).view("<f4")


def case(file, blocks, number, options=None, ids=None, sources=None, spans=None, metadata=None, rows=None, known=True):
    """`blocks`: pairs of name and the f32 array that is expected."""
    arrays = [exact(array) for _, array in blocks]
    values = np.concatenate(arrays, axis=1)
    name = f"{len(cases)}.values"
    (folder / name).write_bytes(values.tobytes())
    rows = len(values) if rows is None else rows
    cases.append(
        {
            "file": file,
            "blocks": [[name, int(array.shape[1])] for (name, _), array in zip(blocks, arrays)],
            "number": number,
            "options": options or {},
            "rows": rows,
            "known": known,
            "values": name,
            "ids": [f"{pathlib.Path(file).stem}-{row:04}" for row in range(rows)] if ids is None else ids,
            "sources": sources,
            "spans": spans,
            "metadata": metadata,
        }
    )


PATTERN = {"pattern": "{stem}-{row:04}"}
IDS = [f"example {row} ü" for row in range(ROWS)]
SOURCES = [["wiki", "books", None][row % 3] for row in range(ROWS)]
STARTS = [None if row % 4 == 0 else row for row in range(ROWS)]
ENDS = [None if row % 4 == 0 else row + 3 for row in range(ROWS)]
SPANS = [None if start is None else [start, end] for start, end in zip(STARTS, ENDS)]


def make_npy():
    for order in "<>":
        for kind, number in [("f2", "f16"), ("f4", "f32"), ("f8", "f64")]:
            values = vectors(1, 37, order + kind)
            file = f"{'little' if order == '<' else 'big'}-{kind}.npy"
            np.save(folder / file, values)
            case(file, [("all", values)], number, PATTERN)
    values = vectors(2, 5)
    np.save(folder / "one.npy", values[3])
    case("one.npy", [("all", values[3:4])], "f32", {"pattern": "{stem}"}, ids=["one"], rows=1)
    np.save(folder / "none.npy", values[:0])
    case("none.npy", [("all", values[:0])], "f32", PATTERN, rows=0)
    # A single column is in both orders, and numpy says C.
    np.save(folder / "column.npy", np.asfortranarray(values[:, :1]))
    case("column.npy", [("all", values[:, :1])], "f32", PATTERN)
    with open(folder / "version2.npy", "wb") as file:
        np.lib.format.write_array(file, values, version=(2, 0))
    case("version2.npy", [("all", values)], "f32", PATTERN)
    np.save(folder / "beside.npy", values)
    (folder / "beside.ids.txt").write_text("".join(f"{id}\n" for id in IDS), encoding="utf-8")
    case("beside.npy", [("all", values)], "f32", {}, ids=IDS)
    wide = vectors(3, 300_000, rows=3)
    np.save(folder / "wide.npy", wide)
    case("wide.npy", [("all", wide)], "f32", PATTERN, rows=3)


def make_npz():
    a, b = vectors(4, 11), vectors(5, 3, ">f8")
    for save, file in [(np.savez, "stored.npz"), (np.savez_compressed, "deflated.npz")]:
        save(folder / file, **{"layers.1": a, "layers.0": b}, ids=np.array(IDS), sources=np.array([s or "" for s in SOURCES]))
        case(file, [("layers.1", a), ("layers.0", b)], "f64", {}, ids=IDS, sources=SOURCES)
    case("stored.npz", [("layers.0", b)], "f64", {"blocks": ["layers.0"]}, ids=IDS, sources=SOURCES)
    for kind, ids in [
        (">i4", np.arange(ROWS) - 3),
        ("<u8", np.arange(ROWS, dtype="u8") + np.uint64(2**64 - 100)),
        ("|S9", np.array([f"id{row}" for row in range(ROWS)])),
        (">U9", np.array([f"ü{row}" for row in range(ROWS)])),
    ]:
        file = f"ids-{kind[1:]}.npz"
        np.savez(folder / file, all=a, key=ids.astype(kind))
        case(file, [("all", a)], "f32", {"id_column": "key"}, ids=[str(id) for id in ids])


def make_safetensors():
    a, b = vectors(6, 16), vectors(7, 9, "<f2")
    safetensors.numpy.save_file({"layers.0": a, "head": b}, folder / "blocks.safetensors")
    case("blocks.safetensors", [("layers.0", a), ("head", b)], "f32", PATTERN)
    case("blocks.safetensors", [("head", b), ("layers.0", a)], "f32", PATTERN | {"blocks": ["head", "layers.0"]})
    safetensors.numpy.save_file({"x": a.astype("<f8"), "labels": np.arange(ROWS)}, folder / "wide.safetensors")
    case("wide.safetensors", [("x", a)], "f64", PATTERN | {"blocks": ["x"]})
    halves, values = bf16(a)
    spec = safetensors.TensorSpec(
        dtype="bfloat16", shape=halves.shape, data_ptr=halves.ctypes.data, data_len=halves.nbytes
    )
    safetensors.serialize_file({"all": spec}, folder / "bf16.safetensors")
    case("bf16.safetensors", [("all", values)], "bf16", PATTERN)
    rows = {f"example {row:02}": a[row] for row in range(ROWS)}
    safetensors.numpy.save_file(rows, folder / "rows.safetensors")
    case("rows.safetensors", [("all", a)], "f32", {}, ids=sorted(rows))


def fixed(array, type=None):
    flat = pa.array(np.ascontiguousarray(array).reshape(-1), type=type)
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def lists(array, kind):
    return pa.array(list(array), type=kind(pa.from_numpy_dtype(array.dtype)))


def make_tables():
    a, b, c = vectors(8, 13), vectors(9, 4, "<f2"), vectors(10, 6, "<f8")
    plain = pa.table(
        {
            "id": pa.array(IDS),
            "text": pa.array([f"text {row}" for row in range(ROWS)]),
            "b": fixed(b),
            "source": pa.array(SOURCES),
            "a": fixed(a),
            "span_start": pa.array(STARTS, pa.uint32()),
            "span_end": pa.array(ENDS, pa.int64()),
            "metadata": pa.array([None if row == 2 else b"\xff" * row for row in range(ROWS)], pa.binary()),
        }
    )
    metadata = [[] if row == 2 else [255] * row for row in range(ROWS)]
    table("plain", plain, [("b", b), ("a", a)], "f32", {}, ids=IDS, sources=SOURCES, spans=SPANS, metadata=metadata)
    texts = [list(json.dumps({"n": row, "text": f"text {row}", "f": row / 2, "yes": row % 2 == 0, "no": None}, separators=(",", ":")).encode()) for row in range(ROWS)]
    several = pa.table(
        {
            "key": pa.array(np.arange(ROWS, dtype="i2") - 1),
            "c": lists(c, pa.list_),
            "d": lists(a, pa.large_list),
            "label": pa.array([s or "none" for s in SOURCES]).dictionary_encode(),
            "n": pa.array(range(ROWS), pa.uint8()),
            "text": pa.array([f"text {row}" for row in range(ROWS)], pa.large_utf8()),
            "f": pa.array([row / 2 for row in range(ROWS)]),
            "yes": pa.array([row % 2 == 0 for row in range(ROWS)]),
            "no": pa.array([None] * ROWS, pa.string()),
        }
    )
    options = {"id_column": "key", "source_column": "label", "metadata_columns": ["n", "text", "f", "yes", "no"]}
    ids = [str(row - 1) for row in range(ROWS)]
    labels = [s or "none" for s in SOURCES]
    table("several", several, [("c", c), ("d", a)], "f64", options, ids=ids, sources=labels, metadata=texts)
    halves, values = bf16(a)
    raw = pa.table(
        {
            "id": pa.array([f"{row}".encode() for row in range(ROWS)], pa.large_binary()),
            "v": pa.array([row.tobytes() for row in halves], pa.binary(halves.shape[1] * 2)),
        }
    )
    table("raw", raw, [("v", values)], "bf16", {"number": "bf16"}, ids=[str(row) for row in range(ROWS)])
    views = pa.table({"id": pa.array(IDS, pa.string_view()), "v": fixed(a)})
    table("views", views, [("v", a)], "f32", {}, ids=IDS)
    sliced = pa.table({"id": pa.array(["x"] * 5 + IDS), "v": fixed(np.concatenate([a[:5], a]))}).slice(5)
    table("sliced", sliced, [("v", a)], "f32", {}, ids=IDS)


def table(name, table, blocks, number, options, **expected):
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    case(f"{name}.arrow", blocks, number, options, **expected)
    # A stream in a file: its rows are counted too.
    with pa.OSFile(str(folder / f"{name}.arrows"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    case(f"{name}.arrows", blocks, number, options, **expected)
    for compression in ["lz4", "zstd"]:
        ipc = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.OSFile(str(folder / f"{name}-{compression}.arrow"), "wb") as file:
            with pa.ipc.new_file(file, table.schema, options=ipc) as writer:
                writer.write_table(table, max_chunksize=10)
        case(f"{name}-{compression}.arrow", blocks, number, options, **expected)
    for compression in ["none", "snappy", "zstd", "lz4"]:
        pq.write_table(table, folder / f"{name}-{compression}.parquet", compression=compression, row_group_size=9)
        case(f"{name}-{compression}.parquet", blocks, number, options, **expected)
    pq.write_table(table, folder / f"{name}-bare.parquet", store_schema=False)
    if name in ("plain", "several"):
        case(f"{name}-bare.parquet", blocks, number, options, **expected)


def read_written(path):
    """The columns of a file: blocks as f32 arrays, and what is said of each row."""
    kind = path.suffix
    if kind == ".npy":
        ids = path.with_suffix(".ids.txt")
        return {"all": np.load(path)}, {"ids": ids.read_text("utf-8").splitlines() if ids.exists() else []}
    if kind == ".npz":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
        arrays = dict(np.load(path))
        said = {"ids": [str(id) for id in arrays.pop("ids")]}
    elif kind == ".safetensors":
        arrays = {}
        for name, tensor in safetensors.deserialize(path.read_bytes()):
            types = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1", "U32": "<u4", "I64": "<i8"}
            array = np.frombuffer(bytes(tensor["data"]), types[tensor["dtype"]]).reshape(tensor["shape"])
            arrays[name] = (array.astype("<u4") << 16).view("<f4") if tensor["dtype"] == "BF16" else array
        said = {"ids": [id.decode() for id in split(arrays, "ids")]}
    else:
        table = pa.ipc.open_file(path).read_all() if kind == ".arrow" else pq.read_table(path)
        table.validate(full=True)
        said = {
            "ids": [id.decode() for id in table["id"].to_pylist()],
            "sources": table["source"].to_pylist(),
            "spans": [None if s is None else [s, e] for s, e in zip(table["span_start"].to_pylist(), table["span_end"].to_pylist())],
            "metadata": [list(m or b"") for m in table["metadata"].to_pylist()],
        }
        skip = {"id", "source", "span_start", "span_end", "metadata"}
        blocks = {}
        for name in [name for name in table.column_names if name not in skip]:
            column = table[name].combine_chunks()
            assert pa.types.is_fixed_size_list(column.type), column.type
            blocks[name] = column.values.to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
        return blocks, said
    if "sources" in arrays:
        sources = split(arrays, "sources") if "sources.offsets" in arrays else arrays.pop("sources")
        said["sources"] = [(s.decode() if isinstance(s, bytes) else str(s)) or None for s in sources]
    if "spans" in arrays:
        said["spans"] = [None if end == 2**32 - 1 else [int(start), int(end)] for start, end in arrays.pop("spans")]
    if "metadata" in arrays:
        said["metadata"] = [list(m) for m in split(arrays, "metadata")]
    return arrays, said


def split(arrays, name):
    data, offsets = arrays.pop(name).tobytes(), arrays.pop(f"{name}.offsets")
    return [data[start:end] for start, end in zip(offsets, offsets[1:])]


def check():
    for written in json.loads((folder / "written.json").read_text()):
        path = folder / written["file"]
        blocks, said = read_written(path)
        expected = np.frombuffer((folder / written["values"]).read_bytes(), "<f4")
        dims = sum(dims for _, dims in written["blocks"])
        if path.suffix == ".safetensors":
            # Its own library has names in no order.
            blocks = {name: blocks[name] for name, _ in written["blocks"]} | blocks
        if path.suffix != ".npy":
            assert [[name, array.shape[1]] for name, array in blocks.items()] == written["blocks"], (path, blocks.keys())
        values = np.concatenate([array.astype("<f4") for array in blocks.values()], axis=1)
        assert values.shape == (written["rows"], dims), path
        assert values.tobytes() == expected.tobytes(), path
        for key, value in said.items():
            assert value == written[key], (path, key, value, written[key])
        for key in ["sources", "spans", "metadata"]:
            assert key in said or not written["says_all"], (path, key)


def wrong(file, options, *error):
    cases.append({"file": file, "options": options, "error": error})


def make_wrong():
    a = vectors(11, 6)
    nan = a.copy()
    nan[7, 2], nan[9, 1] = np.nan, np.inf
    big = a.astype("f8")
    big[5, 5] = 1e300
    arrays = {
        "ints": (np.arange(24).reshape(4, 6), {}, ["i8"]),
        "objects": (np.array([["a", None]], object), {}, ["|O"]),
        "complex": (a.astype("c8"), {}, ["c8"]),
        "structured": (np.zeros(3, [("x", "f4"), ("y", "f4")]), {}, ["[('x', '<f4')"]),
        "cube": (a.reshape(ROWS, 2, 3), {}, ["3 dimensions"]),
        "fortran": (np.asfortranarray(a), {}, ["Fortran order", "ascontiguousarray"]),
        "nan": (nan, {}, ["row 7", "value 2", "NaN"]),
        "big": (big, {}, ["row 5", "value 5", "inf"]),
    }
    for name, (array, options, error) in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=True)
        wrong(f"{name}.npy", PATTERN | options, *error)
        np.savez_compressed(folder / f"{name}.npz", block=array)
        wrong(f"{name}.npz", PATTERN | options, *error)
    np.save(folder / "no-ids.npy", a)
    wrong("no-ids.npy", {}, "no ids", "column", "file with one id a line", "pattern")
    wrong("no-ids.npy", {"pattern": "{stem}"}, "row 1", "{row}")
    wrong("no-ids.npy", PATTERN | {"blocks": ["a", "b"]}, "2 blocks")
    np.savez(folder / "lengths.npz", a=a, b=a[:-1])
    wrong("lengths.npz", PATTERN, "22 rows", "23")
    np.savez(folder / "short.npz", a=a, ids=np.arange(3))
    wrong("short.npz", {}, "ids")
    np.savez(folder / "others.npz", a=a, labels=np.arange(ROWS))
    wrong("others.npz", PATTERN, "labels")
    wrong("others.npz", PATTERN | {"blocks": ["b"]}, "there is no \"b\"", "a, labels")
    safetensors.numpy.save_file({"a": a, "labels": np.arange(ROWS)}, folder / "others.safetensors")
    wrong("others.safetensors", PATTERN, "labels", "I64")
    wrong("others.safetensors", PATTERN | {"blocks": ["b"]}, "there is no \"b\"", "labels, a")
    safetensors.numpy.save_file({"a": a, "b": a[:-1]}, folder / "lengths.safetensors")
    wrong("lengths.safetensors", PATTERN, "22 rows", "23")
    safetensors.numpy.save_file({"a": a[0], "b": a[1][:-1]}, folder / "rows.safetensors")
    wrong("rows.safetensors", {}, "[5]", "[6]")
    safetensors.numpy.save_file({"a": nan}, folder / "nan.safetensors")
    wrong("nan.safetensors", PATTERN, "row 7", "\"a\"", "value 2", "NaN")
    ids = pa.array([str(row) for row in range(ROWS)])

    def tables(name, columns, options, *error):
        made = pa.table(columns)
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file, pa.ipc.new_file(file, made.schema) as writer:
            writer.write_table(made, max_chunksize=10)
        wrong(f"{name}.arrow", options, *error)
        pq.write_table(made, folder / f"{name}.parquet", row_group_size=8)
        wrong(f"{name}.parquet", options, *error)

    listed = [list(map(float, row)) for row in a]
    null = listed[:12] + [None] + listed[13:]
    within = [list(row) for row in listed]
    within[13][4] = None
    ragged = listed[:14] + [listed[14][:-1]] + listed[15:]
    one = pa.list_(pa.float32(), 6)
    tables("null", {"id": ids, "v": pa.array(null, one)}, {}, "row 12", "null")
    tables("null-list", {"id": ids, "v": pa.array(null, pa.list_(pa.float64()))}, {}, "row 12", "null")
    tables("within", {"id": ids, "v": pa.array(within, one)}, {}, "row 13", "value 4", "null")
    tables("ragged", {"id": ids, "v": pa.array(ragged)}, {}, "row 14", "5 values", "6")
    tables("nan", {"id": ids, "v": fixed(nan)}, {}, "row 7", "\"v\"", "value 2", "NaN")
    tables("no-id", {"id": pa.array([None if row == 11 else row for row in range(ROWS)]), "v": fixed(a)}, {}, "row 11", "id is null")
    tables("no-ids", {"v": fixed(a)}, {}, "no ids", "pattern")
    tables("list-id", {"id": fixed(a), "v": fixed(a)}, {}, "\"id\"", "texts")
    tables("no-vectors", {"id": ids, "n": pa.array(range(ROWS))}, {}, "no column of vectors", "n (Int64)")
    tables("ints", {"id": ids, "v": fixed(a.astype("i4"))}, {"blocks": ["v"]}, "\"v\"", "Float32")
    tables("named", {"id": ids, "v": fixed(a)}, {"blocks": ["w"]}, "there is no \"w\"", "id, v")
    half = {"id": ids, "v": fixed(a), "span_start": pa.array([1] * ROWS), "span_end": pa.array([None] * ROWS, pa.int64())}
    tables("spans", half, {}, "row 0", "span")
    raw = pa.table({"id": ids, "v": pa.array([b"12345"] * ROWS, pa.binary(5))})
    tables("raw", dict(zip(raw.column_names, raw.columns)), {"number": "f32"}, "\"v\"", "cannot be told")


if sys.argv[1] == "wrong":
    make_wrong()
    (folder / "cases.json").write_text(json.dumps(cases))
elif sys.argv[1] == "make":
    make_npy()
    make_npz()
    make_safetensors()
    make_tables()
    (folder / "cases.json").write_text(json.dumps(cases))
else:
    check()
