"""glionode: a DICOM node for brain-tumour MR. docs/architecture.md says in which order to read the code."""

from importlib.metadata import version

__version__ = version("glionode")
