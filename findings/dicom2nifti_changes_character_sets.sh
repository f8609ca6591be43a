#!/usr/bin/env bash
# Versions: dicom2nifti 2.6.2, pydicom 3.0.2.
# Behaviour: importing dicom2nifti overwrites entries of pydicom's table of character sets for the whole process. After
# the import, pydicom decodes texts in ISO 2022 IR 58 (Chinese) to Latin letters, and those in ISO 2022 IR 159
# (Japanese, supplementary) by another codec. A program that converts images and then writes results puts wrong names
# into them, and reading them back in the same process shows no difference.
# Expected by most: importing a library changes nothing about another library's reading of text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dicom2nifti==2.6.2 pydicom==3.0.2
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from pydicom.charset import decode_bytes, python_encoding
from pydicom.valuerep import PN_DELIMS

encodings = ["ISO 2022 IR 6", "ISO 2022 IR 58", "ISO 2022 IR 159"]
name = b"\x1b$)A\xcd\xf5"  # one ideograph of GB 2312, as in PS3.5 Annex K


def decoded() -> str:
    return decode_bytes(name, [python_encoding[each] for each in encodings[:2]], PN_DELIMS)


before = {each: python_encoding[each] for each in encodings}, decoded()
import dicom2nifti  # noqa: E402, F401

after = {each: python_encoding[each] for each in encodings}, decoded()
print("before:", before)
print("after: ", after)
assert before[0]["ISO 2022 IR 58"] == "iso_ir_58"
assert after[0]["ISO 2022 IR 58"] == "GB2312"
assert before[0]["ISO 2022 IR 159"] != after[0]["ISO 2022 IR 159"]
assert before[1] != after[1]
PYTHON
# Output seen:
# before: ({'ISO 2022 IR 6': 'iso8859', 'ISO 2022 IR 58': 'iso_ir_58', 'ISO 2022 IR 159': 'iso2022_jp_2'}, '\x1b$)A王')
# after:  ({'ISO 2022 IR 6': 'iso8859', 'ISO 2022 IR 58': 'GB2312', 'ISO 2022 IR 159': 'iso-2022-jp'}, '\x1b$)AÍõ')
