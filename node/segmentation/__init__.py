"""Segmentation: DICOM series to volumes on one common grid, a method, and its regions as a DICOM SEG."""
