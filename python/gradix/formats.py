"""Vectors in the files and stores that other programs make.

>>> import gradix, numpy
>>> numpy.save("gradients.npy", numpy.ones((3, 8), numpy.float16))
>>> source = gradix.formats.open("gradients.npy", ids="example-{row}")
>>> index = gradix.Index.create("from-npy.gradix", gradix.Schema(source.spec, "f16"))
>>> with index.writer() as writer:
...     for batch in source:
...         writer.append_batch(
...             batch.ids, batch.values, sources=batch.sources, spans=batch.spans, metadata=batch.metadata
...         )
>>> list(index.snapshot().ids())
['example-0', 'example-1', 'example-2']
"""

from gradix._gradix import FileBatch, Source, open_store
from gradix._gradix import open_file as open

__all__ = ["FileBatch", "Source", "open", "open_store"]
