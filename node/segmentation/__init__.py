"""Segmentation: DICOM series to volumes on one common grid, the cascade of networks, and its regions as a DICOM SEG."""
