"""The exception tree of glionode.

::

    GlionodeError
     ├── ConfigError            a setting that the admin must correct; names the key      exit 2
     ├── StudyError             a command of the admin cannot be done with this study     exit 1
     ├── RefusedError           this study cannot be processed; a plain reason            exit 3
     │    ├── SelectionRefused      a contrast is missing or undecided
     │    │    └── SelectionUndecided   headers do not tell T1 from T1c; the images may
     │    ├── GeometryRefused       missing, irregular or contradicting geometry
     │    ├── InstanceRefused       an instance cannot be read
     │    └── ContentRefused        the images do not hold what the method needs (empty brain, NaN, ...)
     ├── AnotherMethodFits      a listed method was made for such exams, and this one was not: caught in the node
     ├── DefectError            a programming error of glionode or a library              exit 1
     └── RetryableError         the same input may succeed later                           exit 1
          ├── StorageError          an existing file cannot be read now: disk or share
          ├── InputsChanged         instances were corrected or withdrawn since the study was ordered
          ├── EngineError           the workflow engine's database does not answer
          │    └── UnreadableRecordError   a record in that database is not one that glionode wrote
          ├── ModelPackError        weights missing, unverifiable or unreachable
          │    └── SourceUnreachableError  the address to fetch them from does not answer
          ├── DeliveryError         a destination did not accept a result
          ├── CommitmentReportError a peer's report of storage commitment cannot be read
          ├── NotifyError           a service did not accept a notice
          ├── OverdueError          a step took longer than its limit
          ├── UnforeseenError       an error of disk, memory or device that glionode does not know
          └── VerificationError     a result, read back, differs from the intended one; never sent

A *refusal* is final for this input, and humans are notified. A *retryable* error has a cause outside the study and may
pass. The texts of errors name tags, series and files; they never hold patient data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.study import Selection


class GlionodeError(Exception):
    """Base of everything glionode raises on purpose."""

    exit_code = 1


class ConfigError(GlionodeError):
    """A setting is unknown, missing or out of range; the text names the key."""

    exit_code = 2


class StudyError(GlionodeError):
    """A command of the admin cannot be done with this study; the text says why."""


class RefusedError(GlionodeError):
    """The study cannot be processed; ``str(error)`` is the reason shown to humans."""

    exit_code = 3


class SelectionRefused(RefusedError):  # noqa: N818 - the name says what happened: the selection was refused
    """A required contrast is missing, ambiguous or contradicting.

    ``considered``: the verdict on every series, with none chosen; None if the series were not judged.
    """

    def __init__(self, reason: str, considered: Selection | None = None) -> None:
        super().__init__(reason)
        self.considered = considered


class SelectionUndecided(SelectionRefused):
    """Two T1-weighted series whose headers do not say which is after contrast agent; their images may decide."""


class GeometryRefused(RefusedError):  # noqa: N818
    """Geometry is missing, irregular, or two authorities disagree about it."""


class InstanceRefused(RefusedError):  # noqa: N818
    """An instance cannot be read as DICOM, or lacks a required attribute."""


class ContentRefused(RefusedError):  # noqa: N818
    """The method cannot work on these voxels."""


class AnotherMethodFits(GlionodeError):  # noqa: N818 - it is no error of the study, whose workflow goes on with it
    """The images show another state of the exam than its method was made for, and another listed method fits.

    ``request``: the processing request for that method, as JSON; it stays within the step that raises the error, for
    the text alone is recorded.
    """

    def __init__(self, reason: str, request: str = "") -> None:
        super().__init__(reason)
        self.request = request


class RetryableError(GlionodeError):
    """The cause lies outside the study: the same input may succeed later."""


class StorageError(RetryableError):
    """The disk or share does not return a file that it holds; the study itself is not at fault."""


class InputsChanged(RetryableError):  # noqa: N818 - the name says what happened
    """Instances were corrected or withdrawn since the study was ordered: a later order processes what is there now."""


class EngineError(RetryableError):
    """The workflow engine's database does not answer, or refuses the request."""


class UnreadableRecordError(EngineError):
    """A record in the engine's database is not one that glionode wrote; the text names workflow and column."""


class ModelPackError(RetryableError):
    """A model pack is not installed, does not match its checksums, or cannot be fetched."""


class SourceUnreachableError(ModelPackError):
    """The address that a model pack is fetched from does not answer, or not with the file."""


class DeliveryError(RetryableError):
    """A destination refused, aborted or did not answer."""


class CommitmentReportError(RetryableError):
    """A report of storage commitment lacks an element that the standard requires; the text names the tag."""


class NotifyError(RetryableError):
    """A service did not accept a notice; the text names scheme and host, never credentials."""


class VerificationError(RetryableError):
    """A result, read back from its bytes, differs from the intended one; it is not sent."""


class OverdueError(RetryableError):
    """A step of a workflow took longer than its limit in ``[limits]``; the text names the step and the seconds."""


class UnforeseenError(RetryableError):
    """An error of disk, memory or device that glionode does not know.

    The text gives its kind and place, not the original text.
    """


class DefectError(GlionodeError):
    """A programming error (TypeError, KeyError, ...): another attempt would fail in the same way, so there is none.

    The text gives its kind and place, not the original text, which may repeat a header's value.
    """
