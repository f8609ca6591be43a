"""Repairs or removes, in a header, the values that the standard forbids, before a result copies them."""

from __future__ import annotations

import contextlib
import copy
import math
import re
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from pydicom import Dataset, config
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, PersonName

from node.dicom.character_sets import codecs_for, decoded, is_written, terms_of
from node.dicom.copied_modules import EMPTY_SEQUENCES, ENUMERATED, ONE_ITEM, POSITIVE, REQUIRED_IN_ITEMS
from node.dicom.value_rules import UNSPLIT, InvalidValue, valid_values

_NUMBERS = ("US", "SS", "UL", "SL", "FD", "FL", "UV", "SV")
_STRINGS = (*CUSTOMIZABLE_CHARSET_VR, "DA", "TM", "DT", "AS", "DS", "IS", "CS", "UI", "UR", "AE")
_CODES = ("CodeValue", "LongCodeValue", "URNCodeValue")
_CONTEXT = ("ContextIdentifier", "ContextUID", "MappingResource", "ContextGroupVersion")
# pydicom's exceptions on a value that it cannot convert
_MALFORMED = (
    ValueError, TypeError, LookupError, AttributeError, NotImplementedError, ArithmeticError, EOFError, OSError,
    RecursionError, BytesLengthException, struct.error,
)  # fmt: skip


class Cleaner:
    """Cleans some attributes of one data set, or all of one item.

    Attributes:
        is_rewritten: texts are decoded here and are to be written in UTF-8.
        read_as: Python's codec that was assumed for the texts; empty if the data set names their character set.
    """

    def __init__(self, dataset: Dataset, keywords: Iterable[str], parent: Cleaner | None = None) -> None:
        self._dataset = dataset
        self._tags = [Tag(keyword) for keyword in keywords if keyword in dataset]
        self._codecs: tuple[str, ...]
        self.read_as = ""
        self.is_rewritten: bool
        for tag in self._tags:
            if dictionary_VR(tag) == "SQ":  # pydicom converts the items, whose texts are looked at below
                with contextlib.suppress(*_MALFORMED):
                    dataset[tag]
        terms = terms_of(dataset)
        if parent is not None and not terms:
            self._codecs, self.is_rewritten = parent._codecs, parent.is_rewritten
            return
        self._codecs, is_assumed = codecs_for(terms, list(_raw_texts(dataset, self._tags)))
        self.read_as = self._codecs[0] if is_assumed else ""
        self.is_rewritten = is_assumed or not is_written(terms) or (parent is not None and parent.is_rewritten)
        is_implicit, is_little_endian = dataset.original_encoding
        dataset.set_original_encoding(is_implicit, is_little_endian, list(self._codecs))

    def clean(self) -> list[tuple[str, str]]:
        """Clean all attributes in place; the keyword of each that is removed, or changed, and why.

        The reason is empty for a repaired value. A removed attribute is missing afterwards.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings repeat values
            found = [(keyword_for_tag(tag), self._problem(tag)) for tag in self._tags]
        return [(keyword, problem) for keyword, problem in found if problem is not None]

    def _problem(self, tag: BaseTag) -> str | None:
        """Clean one attribute: None if it stays as it was, empty if it is repaired, else why it is removed."""
        try:
            return "" if self._clean_element(tag, keyword_for_tag(tag)) else None
        except InvalidValue as error:
            problem = str(error)
        except _MALFORMED:
            problem = "cannot be read"
        del self._dataset[tag]
        return problem

    def _clean_element(self, tag: BaseTag, keyword: str) -> bool:
        vr = dictionary_VR(tag)
        if vr == "SQ":
            return self._clean_sequence(tag, keyword)
        if vr not in (*_STRINGS, *_NUMBERS):
            return False
        written_vr = _stored(self._dataset, tag).VR
        # an unknown VR is no fault of the value (PS3.5 6.2.2), any other one is
        is_changed = written_vr not in (None, "UN", vr)
        if is_changed and vr in _NUMBERS:
            raise InvalidValue("has another value representation")
        values = self._values(tag, vr)
        found = valid_values(keyword, vr, _multiplicity(tag), values)
        if keyword in ENUMERATED and not set(found) <= set(ENUMERATED[keyword]):
            raise InvalidValue("is none of the enumerated values")
        if keyword in POSITIVE and any(value and float(value) <= 0 for value in found):
            raise InvalidValue("is not greater than zero")
        if vr in _NUMBERS:
            if not all(math.isfinite(float(value)) for value in found):
                raise InvalidValue("is not a finite number")
            return False
        is_changed = is_changed or found != [value.rstrip(" \0") for value in values]
        is_padded = vr in ("DA", "TM") and found != values
        is_decoded = vr in CUSTOMIZABLE_CHARSET_VR and (self.is_rewritten or self._differs(tag, found))
        if is_changed or is_padded or is_decoded or written_vr == "UN":
            value = found if len(found) > 1 else "".join(found)
            self._dataset[tag] = DataElement(tag, vr, value, validation_mode=config.IGNORE)
        return is_changed

    def _differs(self, tag: BaseTag, values: Sequence[str]) -> bool:
        """True if pydicom reads other values, for it splits bytes before it decodes them."""
        stored = _stored(self._dataset, tag)
        if isinstance(stored, RawDataElement) and (not stored.value or stored.value.isascii()):
            return b"\x1b" in (stored.value or b"") and self._is_read_otherwise(tag, values)
        return self._is_read_otherwise(tag, values)

    def _is_read_otherwise(self, tag: BaseTag, values: Sequence[str]) -> bool:
        return [str(value).rstrip(" \0") for value in _members(self._dataset[tag].value)] != list(values)

    def _values(self, tag: BaseTag, vr: str) -> list[str]:
        """The values as text, with their padding."""
        element = _stored(self._dataset, tag)
        if vr in _NUMBERS:
            return [str(value) for value in _members(self._dataset[tag].value) if value not in (None, "")]
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
            codecs = self._codecs if vr in CUSTOMIZABLE_CHARSET_VR else ("ascii",)
            text = decoded(element.value, codecs)
            return [text] if vr in UNSPLIT else text.split("\\")
        values = []
        for value in _members(element.value):
            if isinstance(value, PersonName) and value.encodings is not None and value.original_string:
                value = decoded(value.original_string, self._codecs)
            values.append("" if value is None else str(value))
        return values

    def _clean_sequence(self, tag: BaseTag, keyword: str) -> bool:
        """Clean each item; items without their required attributes are left out, and with the last one the sequence.

        Raises:
            InvalidValue: no item is left.
        """
        items = self._dataset[tag].value
        if len(items) == 0 and keyword in EMPTY_SEQUENCES:
            return False
        if len(items) == 0:
            del self._dataset[tag]  # it says nothing, and validators call it an error
            return False
        if keyword in ONE_ITEM and len(items) > 1:
            raise InvalidValue("has several items, where one is allowed")
        cleaned, is_changed, is_rewritten = [], False, False
        for item in items:
            copied = copy.deepcopy(item)
            is_changed |= _repair_code(copied)
            cleaner = Cleaner(copied, list(copied.dir()), self)
            is_changed |= bool(cleaner.clean()) | _drop_context(copied)
            is_rewritten |= cleaner.is_rewritten
            if cleaner.is_rewritten and "SpecificCharacterSet" in copied:
                del copied.SpecificCharacterSet
            if _is_complete(copied, keyword):
                cleaned.append(copied)
        if not cleaned:
            raise InvalidValue("has no item with its required attributes")
        if is_changed or is_rewritten or len(cleaned) < len(items):
            self._dataset[tag] = DataElement(tag, "SQ", cleaned)
        return is_changed or len(cleaned) < len(items)


def _raw_texts(dataset: Dataset, tags: Iterable[BaseTag]) -> Iterator[bytes]:
    """The bytes of each text among ``tags``, those of items without a character set of their own included."""
    for tag in tags:
        element = _stored(dataset, tag)
        vr = dictionary_VR(tag) if keyword_for_tag(tag) else element.VR
        if vr == "SQ":
            for item in _members(element.value):
                if isinstance(item, Dataset) and not terms_of(item):
                    yield from _raw_texts(item, list(item.keys()))
        elif vr in CUSTOMIZABLE_CHARSET_VR:
            for value in _members(element.value):
                if isinstance(value, PersonName) and value.encodings is not None:
                    value = value.original_string
                if isinstance(value, bytes):
                    yield value


def _stored(dataset: Dataset, tag: BaseTag) -> DataElement | RawDataElement:
    """The element as it was read, without a conversion."""
    return cast(DataElement | RawDataElement, dataset.get_item(tag))


def _members(value: object) -> list[object]:
    if isinstance(value, MultiValue | Sequence) and not isinstance(value, str | bytes):
        return list(value)
    return [] if value is None else [value]


def _multiplicity(tag: BaseTag) -> int:
    vm = dictionary_VM(tag)
    return int(vm) if re.fullmatch("[0-9]+", vm) else 0


def _repair_code(item: Dataset) -> bool:
    """Move a code of more than 16 characters to Long Code Value (PS3.3 8.1)."""
    value = str(item.get("CodeValue") or "")
    if len(value) <= 16 or "LongCodeValue" in item:
        return False
    item.LongCodeValue = value
    del item.CodeValue
    return True


def _drop_context(item: Dataset) -> bool:
    """Remove an incomplete reference to a context group (PS3.3 8.6), which is optional."""
    is_incomplete = ("ContextIdentifier" in item or "ContextGroupVersion" in item) and not all(
        item.get(keyword) for keyword in ("ContextIdentifier", "MappingResource", "ContextGroupVersion")
    )
    names = [*_CONTEXT] if is_incomplete else []
    if item.get("ContextGroupExtensionFlag") == "Y" and not (
        item.get("ContextGroupLocalVersion") and item.get("ContextGroupExtensionCreatorUID")
    ):
        names.append("ContextGroupExtensionFlag")
    present = [keyword for keyword in names if keyword in item]
    for keyword in present:
        delattr(item, keyword)
    return bool(present)


def _is_complete(item: Dataset, sequence: str) -> bool:
    """True if an item of ``sequence`` has the attributes that PS3.3 requires."""
    if not all(item.get(keyword) for keyword in REQUIRED_IN_ITEMS.get(sequence, ())):
        return False
    if "PersonIdentificationCodeSequence" in item and not (
        item.get("InstitutionName") or item.get("InstitutionCodeSequence")
    ):
        return False
    if item.get("ConsentForDistributionFlag", "NO") != "NO" and not item.get("DistributionType"):
        return False
    if item.get("UniversalEntityID") and not item.get("UniversalEntityIDType"):
        return False
    if sequence.startswith("Issuer") and "LocalNamespaceEntityID" not in item and "UniversalEntityID" not in item:
        return sequence == "IssuerOfPatientIDQualifiersSequence" and len(item) > 0
    if not sequence.endswith("CodeSequence"):
        return len(item) > 0
    named = [keyword for keyword in _CODES if item.get(keyword)]
    has_scheme = bool(item.get("CodingSchemeDesignator")) or named == ["URNCodeValue"]
    return len(named) == 1 and has_scheme and bool(item.get("CodeMeaning"))
