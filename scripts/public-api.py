#!/usr/bin/env python3
"""Reads rustdoc's JSON, counts the public items, and reports types of other crates in the public API.

    scripts/public-api.py target/doc/gradix.json

With a type of RocksDB or rayon in a public field or signature, a change of that dependency would be a
breaking change of gradix; a caller cannot match on a boxed error.
Exit status 1 if there are any but those that are expected.
"""

import collections
import json
import sys

# The standard library; `Uuid` is part of the interface; the schema is serialised; the adapter is for burn.
ALLOWED = ("std", "core", "alloc", "uuid", "serde", "burn")

EXPECTED = {
    # The scan does not know the index, whose `GetError` this is; its documentation says so.
    "::gradix::scan::ScanError::Lookup::source: a boxed error",
    # A curvature does not know the manifest, whose `ManifestError` this is; its documentation says so.
    "::gradix::curvature::CurvatureError::Lookup::source: a boxed error",
    # What the caller's own replica, sink or input returns, which only the caller can name; its page says so.
    "::gradix::burn::collect::Cause: a boxed error",
}

with open(sys.argv[1]) as file:
    crate = json.load(file)
index, paths, crates = crate["index"], crate["paths"], crate["external_crates"]
counts = collections.Counter()
seen = set()
faults = set()


def kind_of(item):
    return next(iter(item["inner"]))


def check(value, where):
    """Looks through a type, a signature or bounds."""
    if isinstance(value, list):
        for part in value:
            check(part, where)
    elif isinstance(value, dict):
        if "id" in value and ("path" in value or "name" in value):
            path = paths.get(str(value["id"]))
            if path and path["crate_id"] != 0:
                name = crates[str(path["crate_id"])]["name"]
                if not name.startswith(ALLOWED):
                    faults.add(f"{where}: {'::'.join(path['path'])}")
        if "dyn_trait" in value:
            for bound in value["dyn_trait"]["traits"]:
                if paths.get(str(bound["trait"]["id"]), {}).get("path", [])[-1:] == ["Error"]:
                    faults.add(f"{where}: a boxed error")
        for part in value.values():
            check(part, where)


def visit(key, where):
    item = index.get(str(key))
    if item is None or item["id"] in seen:
        return
    seen.add(item["id"])
    kind, inner = kind_of(item), next(iter(item["inner"].values()))
    path = f"{where}::{item['name']}" if item.get("name") else where
    if kind == "use":
        # What is exported from a private module stands behind its `use`.
        visit(inner["id"], where)
        return
    if kind == "impl":
        # Not what the compiler or a blanket implementation adds.
        if inner["is_synthetic"] or inner["blanket_impl"] is not None:
            return
        if inner["trait"] is not None:
            # Which trait it is counts, not the signatures, which the trait gives.
            check(inner["trait"], path)
        else:
            for child in inner["items"]:
                visit(child, path)
        return
    counts[kind] += 1
    if kind == "module":
        for child in inner["items"]:
            visit(child, path)
        return
    own = {"struct": ("kind", "impls"), "enum": ("variants", "impls"), "trait": ("items", "implementations")}
    check({name: part for name, part in inner.items() if name not in own.get(kind, ())}
          if isinstance(inner, dict) else inner, path)
    for child in children(kind, inner):
        visit(child, path)


def children(kind, inner):
    if kind == "struct":
        shape = inner["kind"]
        fields = []
        if isinstance(shape, dict):
            body = next(iter(shape.values()))
            fields = body["fields"] if isinstance(body, dict) else body
        return [field for field in fields if field is not None] + inner["impls"]
    if kind == "enum":
        return inner["variants"] + inner["impls"]
    if kind == "variant":
        shape = inner["kind"]
        if not isinstance(shape, dict):
            return []
        body = next(iter(shape.values()))
        return [field for field in (body["fields"] if isinstance(body, dict) else body) if field is not None]
    return inner["items"] if kind == "trait" else []


visit(crate["root"], "")
total = sum(counts.values())
print(f"{total} public items: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
for fault in sorted(faults - EXPECTED):
    print(f"not of the standard library or gradix: {fault.lstrip(':')}", file=sys.stderr)
for fault in sorted(EXPECTED - faults):
    print(f"no longer there, and still expected: {fault.lstrip(':')}", file=sys.stderr)
sys.exit(1 if faults != EXPECTED else 0)
