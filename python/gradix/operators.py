"""What researchers ask besides rankings: sources, selection, coresets, near-duplicates, self-influence.

They take a snapshot, and the options of its ``scan`` as keyword arguments.

>>> import gradix, numpy, tempfile
>>> schema = gradix.Schema(gradix.SketchSpec.dense("mine", "v1", [("all", 2)]), "f32")
>>> index = gradix.Index.create(tempfile.mkdtemp() + "/my.gradix", schema)
>>> with index.writer() as writer:
...     writer.append_batch(["a", "b", "c"], numpy.array([[1, 0], [1, 0.001], [0, 1]], numpy.float32), sources="wiki")
>>> list(gradix.operators.duplicates(index.snapshot(), 0.99))[0][:2]
('a', 'b')
"""

from gradix._gradix import (
    by_source,
    coreset,
    duplicate_clusters,
    duplicates,
    highest_self_influence,
    informative,
    mean_of,
    select,
    sum_of,
)

__all__ = [
    "by_source",
    "coreset",
    "duplicate_clusters",
    "duplicates",
    "highest_self_influence",
    "informative",
    "mean_of",
    "select",
    "sum_of",
]
