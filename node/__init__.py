"""glionode: a DICOM-native PACS integration node for brain-tumour MR. docs/architecture.md says where to start."""

from importlib.metadata import version

__version__ = version("glionode")
