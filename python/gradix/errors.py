"""The exceptions of gradix, one for each kind: by what the caller can do about it.

>>> import gradix
>>> try:
...     gradix.Index.open("/there/is/nothing")
... except gradix.NotFoundError as error:
...     error.kind
'not_found'
"""

from __future__ import annotations

__all__ = [
    "AlreadyExistsError",
    "BusyError",
    "CancelledError",
    "DamagedError",
    "Error",
    "ExpiredError",
    "InvalidInputError",
    "InvalidStateError",
    "IoError",
    "NewerError",
    "NotFoundError",
    "PoisonedError",
    "UnsupportedError",
]


class Error(Exception):
    """Any error of gradix. ``kind`` is its kind, as the program's JSON has it."""

    kind: str = "unknown"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DamagedError(Error):
    """Stored bytes are not what was written. ``Index.verify`` lists all damage; restore from a copy."""

    kind = "damaged"


class IoError(Error, OSError):
    """The file system, the storage or the database failed. ``errno`` is the system's number, if it gave one."""

    kind = "io"


class InvalidInputError(Error, ValueError):
    """An argument is invalid or does not fit the index. Correct the call."""

    kind = "invalid_input"


class InvalidStateError(Error, RuntimeError):
    """The call is not allowed in this state: closed, opened for reading only, uncommitted changes, forked."""

    kind = "invalid_state"


class NotFoundError(Error, KeyError):
    """What was named does not exist: no index in the folder, no such id, generation, source or block."""

    kind = "not_found"


class AlreadyExistsError(Error):
    """What was to be created exists already: an index or another file in the folder, or an id."""

    kind = "already_exists"


class ExpiredError(Error):
    """The generation has been collected. Take a newer snapshot."""

    kind = "expired"


class BusyError(Error):
    """Another writer is open, or this one is at work in another thread. Try again later."""

    kind = "busy"


class PoisonedError(Error):
    """An earlier write failed. Drop the writer and open another; committed data is intact."""

    kind = "poisoned"


class NewerError(Error):
    """The index was written by a later version, or needs a feature that this version lacks."""

    kind = "newer"


class UnsupportedError(Error):
    """This machine, this index or this file does not support the request."""

    kind = "unsupported"


class CancelledError(Error):
    """The operation was cancelled."""

    kind = "cancelled"


_BY_KIND: dict[str, type[Error]] = {error.kind: error for error in Error.__subclasses__()}


def _of_kind(kind: str, message: str, errno: int | None) -> Error:
    error = _BY_KIND.get(kind, Error)(message)
    if isinstance(error, OSError):
        error.errno = errno
    return error
