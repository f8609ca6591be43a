"""The exception tree of glionode.

::

    GlionodeError
     ├── ConfigError            the admin can mend it: names the key                       exit 2
     ├── StudyError             what the admin asked for a study cannot be done           exit 1
     ├── RefusedError           this study cannot be processed; a plain reason             exit 3
     │    ├── SelectionRefused      a contrast is missing or undecided
     │    │    └── SelectionUndecided   headers do not tell T1 from T1c; the images may
     │    ├── GeometryRefused       missing, irregular or contradicting geometry
     │    ├── InstanceRefused       an instance cannot be read
     │    └── ContentRefused        the images do not hold what the method needs (empty brain, NaN, ...)
     └── RetryableError         the same input may succeed later                           exit 1
          ├── StorageError          a file that is there cannot be read now: disk or share
          ├── EngineError           the workflow engine's database does not answer
          ├── ModelPackError        weights missing, unverifiable or unreachable
          ├── DeliveryError         a destination did not take a result
          ├── CommitmentReportError a peer's report of storage commitment cannot be read
          ├── NotifyError           a service did not take a notice
          ├── UnforeseenError       an error that glionode does not know
          └── VerificationError     a result read back differs from what was meant; never sent

*Refused* tells the humans and is final for this input; *retryable* is the node's or its surroundings' trouble.
Texts name tags, series and files; never a patient (CRAFT: no patient data in an exception text).
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
    """What the admin asked for cannot be done with this study; the text says why."""


class RefusedError(GlionodeError):
    """The study cannot be processed; ``str(error)`` is the reason shown to humans."""

    exit_code = 3


class SelectionRefused(RefusedError):  # noqa: N818 - reads as what happened: the selection was refused
    """A required contrast is missing, ambiguous or contradicting.

    ``considered``: the verdict on every series, with nothing chosen; None if it did not come so far.
    """

    def __init__(self, reason: str, considered: Selection | None = None) -> None:
        super().__init__(reason)
        self.considered = considered


class SelectionUndecided(SelectionRefused):
    """T1-weighted twins whose headers do not tell before from after contrast; asking their images may settle it."""


class GeometryRefused(RefusedError):  # noqa: N818
    """Geometry is missing, irregular, or two authorities disagree about it."""


class InstanceRefused(RefusedError):  # noqa: N818
    """An instance cannot be read as DICOM or lacks an attribute that must be there."""


class ContentRefused(RefusedError):  # noqa: N818
    """The voxels are not what the method can work on."""


class RetryableError(GlionodeError):
    """Trouble outside the study: the same input may succeed later."""


class StorageError(RetryableError):
    """The disk or share does not give a file that it holds; nothing is wrong with the study."""


class EngineError(RetryableError):
    """The workflow engine's database does not answer or refuses."""


class ModelPackError(RetryableError):
    """A model pack is not installed, does not match its checksums, or cannot be fetched."""


class DeliveryError(RetryableError):
    """A destination refused, aborted or did not answer."""


class CommitmentReportError(RetryableError):
    """A report of storage commitment lacks what the standard asks for; the text names the tag."""


class NotifyError(RetryableError):
    """A service did not take a notice; the text names scheme and host, never credentials."""


class VerificationError(RetryableError):
    """A result, read back from its bytes, is not what was meant to be written; it is not sent."""


class UnforeseenError(RetryableError):
    """An error that glionode does not know; its kind and place are told, its text is not."""
