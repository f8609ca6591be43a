"""DICOM series to volumes, one grid, the cascade, and back to a DICOM SEG."""
