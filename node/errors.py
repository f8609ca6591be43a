"""The exception tree of glionode.

::

    GlionodeError
     ├── ConfigError            the admin can mend it: names the key                       exit 2
     ├── RefusedError           this study cannot be processed; a plain reason             exit 3
     │    ├── SelectionRefused      a contrast is missing or undecided
     │    ├── GeometryRefused       missing, irregular or contradicting geometry
     │    ├── InstanceRefused       an instance cannot be read
     │    └── ContentRefused        the images do not hold what the method needs (empty brain, NaN, ...)
     └── RetryableError         the same input may succeed later                           exit 1
          ├── EngineError           the workflow engine's database does not answer
          ├── ModelPackError        weights missing, unverifiable or unreachable
          ├── DeliveryError         a destination did not take a result
          └── VerificationError     a result read back differs from what was meant; never sent

*Refused* tells the humans and is final for this input; *retryable* is the node's or its surroundings' trouble.
Texts name tags, series and files; never a patient (CRAFT: no patient data in an exception text).
"""

from __future__ import annotations


class GlionodeError(Exception):
    """Base of everything glionode raises on purpose."""

    exit_code = 1


class ConfigError(GlionodeError):
    """A setting is unknown, missing or out of range; the text names the key."""

    exit_code = 2


class RefusedError(GlionodeError):
    """The study cannot be processed; ``str(error)`` is the reason shown to humans."""

    exit_code = 3


class SelectionRefused(RefusedError):  # noqa: N818 - reads as what happened: the selection was refused
    """A required contrast is missing, ambiguous or contradicting."""


class GeometryRefused(RefusedError):  # noqa: N818
    """Geometry is missing, irregular, or two authorities disagree about it."""


class InstanceRefused(RefusedError):  # noqa: N818
    """An instance cannot be read as DICOM or lacks an attribute that must be there."""


class ContentRefused(RefusedError):  # noqa: N818
    """The voxels are not what the method can work on."""


class RetryableError(GlionodeError):
    """Trouble outside the study: the same input may succeed later."""


class EngineError(RetryableError):
    """The workflow engine's database does not answer or refuses."""


class ModelPackError(RetryableError):
    """A model pack is not installed, does not match its checksums, or cannot be fetched."""


class DeliveryError(RetryableError):
    """A destination refused, aborted or did not answer."""


class VerificationError(RetryableError):
    """A result, read back from its bytes, is not what was meant to be written; it is not sent."""
