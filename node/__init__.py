"""glionode: a DICOM-native PACS integration node for brain-tumour MR. Start reading at ``node/pipeline.py``."""

from importlib.metadata import version

__version__ = version("glionode")
