"""Rankings as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from gradix._gradix import Ranking

WHOLE = (0, 2**32 - 1)


def _objects(values: list[Any]) -> numpy.ndarray[Any, Any]:
    column = numpy.empty(len(values), dtype=object)
    column[:] = values
    return column


def to_numpy(ranking: Ranking) -> dict[str, numpy.ndarray[Any, Any]]:
    """A dict of arrays, one for each column."""
    hits = [
        (query, end, rank, hit)
        for query in range(ranking.queries)
        for end, found in (("proponents", ranking.proponents(query)), ("opponents", ranking.opponents(query)))
        for rank, hit in enumerate(found)
    ]
    spans = [hit.span or WHOLE for *_, hit in hits]
    columns = {
        "query": numpy.array([query for query, *_ in hits], dtype=numpy.int64),
        "end": _objects([end for _, end, *_ in hits]),
        "rank": numpy.array([rank for _, _, rank, _ in hits], dtype=numpy.int64),
        "id": _objects([hit.id for *_, hit in hits]),
        "score": numpy.array([hit.score for *_, hit in hits], dtype=numpy.float64),
        "span_start": numpy.array([start for start, _ in spans], dtype=numpy.uint32),
        "span_end": numpy.array([end for _, end in spans], dtype=numpy.uint32),
        "source": _objects([hit.source for *_, hit in hits]),
    }
    if any(hit.metadata is not None for *_, hit in hits):
        columns["metadata"] = _objects([hit.metadata for *_, hit in hits])
    return columns


def to_pandas(ranking: Ranking) -> pandas.DataFrame:
    """A data frame."""
    import pandas

    return pandas.DataFrame(to_numpy(ranking))


def to_arrow(ranking: Ranking) -> pyarrow.Table:
    """A table."""
    import pyarrow

    columns = to_numpy(ranking)
    ids = columns["id"]
    is_text = all(isinstance(found, str) for found in ids)
    if not is_text:
        columns["id"] = _objects([found.encode() if isinstance(found, str) else found for found in ids])
    types = {
        "end": pyarrow.string(),
        "id": pyarrow.string() if is_text else pyarrow.binary(),
        "source": pyarrow.string(),
        "metadata": pyarrow.binary(),
    }
    return pyarrow.table({name: pyarrow.array(column, types.get(name)) for name, column in columns.items()})
