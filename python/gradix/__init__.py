"""gradix: an embeddable storage engine for gradient indexes.

An index holds compressed gradients of the training examples of a model. Given the gradient of an output, it ranks the
examples by their influence on it.

>>> import gradix, numpy, tempfile
>>> spec = gradix.SketchSpec.rapid_grad(7, 64)
>>> sketcher = gradix.Sketcher(spec)
>>> index = gradix.Index.create(tempfile.mkdtemp() + "/my.gradix", gradix.Schema(spec, "f16"))
>>> with index.writer() as writer:
...     writer.append("sea", sketcher.sketch({"weight": numpy.array([3, -1, 2], numpy.float32)}))
...     writer.append("land", sketcher.sketch({"weight": numpy.array([-2, 0.5, 1], numpy.float32)}))
>>> query = sketcher.sketch({"weight": numpy.array([1, 0, 1], numpy.float32)})
>>> with index.snapshot() as snapshot:
...     ranking = snapshot.scan(query, top_k=1, bottom_k=1)
>>> ranking.proponents(0)[0].id, ranking.opponents(0)[0].id
('sea', 'land')
"""

from gradix import errors, formats, operators
from gradix._gradix import (
    Commit,
    Curvature,
    DetachedWriter,
    Fold,
    FoldBatch,
    Hit,
    Index,
    Part,
    Ranking,
    Report,
    Row,
    Schema,
    ScoredRows,
    Sketch,
    Sketcher,
    SketchSpec,
    Snapshot,
    StoredRow,
    Writer,
    __version__,
    report,
)
from gradix.errors import (
    AlreadyExistsError,
    BusyError,
    CancelledError,
    DamagedError,
    Error,
    ExpiredError,
    InvalidInputError,
    InvalidStateError,
    IoError,
    NewerError,
    NotFoundError,
    PoisonedError,
    UnsupportedError,
)
