#!/usr/bin/env bash
# Versions: SimpleITK 2.5.7, pydicom 3.0.2, dcm2niix 1.0.20260724.
# Behaviour: of one and the same MONOCHROME1 image, SimpleITK returns inverted values (65535 minus the stored ones, for
# 16 bits), while pydicom and dcm2niix return the stored values. PS3.3 C.7.6.3.1.2 makes MONOCHROME1 a matter of display.
# Expected by most: readers of volumes agree about pixel values, or none of them looks at how an image is displayed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  SimpleITK==2.5.7 pydicom==3.0.2 dcm2niix==1.0.20260724 nibabel==5.3.2 numpy==2.2.6
PATH="$folder/venv/bin:$PATH" python -W ignore - "$folder" <<'PYTHON'
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

folder = Path(sys.argv[1])
source, out = folder / "source", folder / "out"
source.mkdir()
out.mkdir()
for number in range(1, 5):
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, f"1.2.3.4.{number}"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    image.Modality, image.InstanceNumber, image.SeriesNumber = "MR", number, 1
    image.Manufacturer, image.SeriesDescription, image.PatientID, image.PatientName = "M", "T1", "1", "A"
    image.ScanningSequence, image.SequenceVariant, image.MRAcquisitionType = "SE", "NONE", "2D"
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    image.PixelSpacing, image.SliceThickness = [1, 1], 1
    image.Rows = image.Columns = 8
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME1"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.PixelData = (np.arange(64, dtype="<u2") + 100).tobytes()
    image["PixelData"].VR = "OW"
    image.save_as(source / f"{number}.dcm", enforce_file_format=True)
subprocess.run(["dcm2niix", "-z", "n", "-o", out, source], check=True, capture_output=True)
(nifti,) = out.glob("*.nii")
by_dcm2niix = nibabel.load(nifti).get_fdata()
by_simpleitk = sitk.GetArrayFromImage(sitk.ReadImage(str(source / "1.dcm")))
print("stored", 100, 163, "dcm2niix", by_dcm2niix.min(), by_dcm2niix.max(), "SimpleITK", by_simpleitk.min(), by_simpleitk.max())
assert (by_dcm2niix.min(), by_dcm2niix.max()) == (100, 163)
assert (by_simpleitk.min(), by_simpleitk.max()) == (65535 - 163, 65535 - 100)
PYTHON
# Output seen:
# stored 100 163 dcm2niix 100.0 163.0 SimpleITK 65372 65435
