"""Reader of TensorFlow "V2" checkpoints (tensor bundles) that does not need TensorFlow.

A bundle is ``X.index``, an SSTable in LevelDB's table format (prefix-compressed keys in uncompressed blocks) whose
values are ``BundleEntryProto`` messages, and ``X.data-00000-of-00001``, the tensors' bytes, little-endian. Format
descriptions: LevelDB ``doc/table_format.md``; TensorFlow ``core/protobuf/tensor_bundle.proto``.

The caller checks integrity: the SHA-256 of both files are compared with the model pack's card before the files are read
here, so the weaker CRC-32C values stored inside are ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.errors import ModelPackError

_TABLE_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_DT_FLOAT = 1


@dataclass(frozen=True, slots=True)
class _Entry:
    dtype: int
    shape: tuple[int, ...]
    offset: int
    size: int


def _varint(buffer: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Key/value pairs of one block; each key is stored without the prefix that it shares with its predecessor."""
    if table[offset + size] != 0:
        raise ModelPackError("checkpoint index: compressed blocks are not used by these checkpoints")
    block = table[offset : offset + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 * (restarts + 1)
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protocol buffer message; 32-bit fields are returned as raw bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            number, position = _varint(message, position)
            yield tag >> 3, number
        elif kind in (2, 5):
            length = 4
            if kind == 2:
                length, position = _varint(message, position)
            yield tag >> 3, message[position : position + length]
            position += length
        else:
            raise ModelPackError(f"checkpoint index: unexpected wire type {kind}")


def _shape(message: bytes) -> tuple[int, ...]:
    sizes = []
    for number, dim in _fields(message):
        if number == 2 and isinstance(dim, bytes):
            sizes += [value for field, value in _fields(dim) if field == 1 and isinstance(value, int)]
    return tuple(sizes)


def _entry(message: bytes) -> _Entry:
    fields = dict(_fields(message))
    shape = fields.get(2, b"")
    numbers = {key: value for key, value in fields.items() if isinstance(value, int)}
    return _Entry(
        dtype=numbers.get(1, 0),
        shape=_shape(shape if isinstance(shape, bytes) else b""),
        offset=numbers.get(4, 0),  # protocol buffers omit fields that are zero
        size=numbers.get(5, 0),
    )


def _entries(index_file: Path) -> dict[str, _Entry]:
    table = index_file.read_bytes()
    footer = table[-_FOOTER_BYTES:]
    if len(table) < _FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != _TABLE_MAGIC:
        raise ModelPackError(f"{index_file.name}: not a TensorFlow checkpoint index")
    position = 0
    for _ in range(2):  # the metaindex handle is skipped
        _, position = _varint(footer, position)
    offset, position = _varint(footer, position)
    size, _ = _varint(footer, position)
    entries = {}
    for _, handle in _block(table, offset, size):
        block_offset, at = _varint(handle, 0)
        block_size, _ = _varint(handle, at)
        for key, value in _block(table, block_offset, block_size):
            if key:  # the empty key holds the bundle's header
                entries[key.decode()] = _entry(value)
    return entries


def read_checkpoint(prefix: Path) -> dict[str, NDArray[np.float32]]:
    """All float32 variables of the checkpoint ``prefix`` (path without ``.index``), by name, in TensorFlow's layout.

    Raises:
        ModelPackError: the files are not a tensor bundle, or the data file is shorter than the index says.
    """
    data = prefix.with_name(prefix.name + ".data-00000-of-00001").read_bytes()
    tensors = {}
    for name, entry in _entries(prefix.with_name(prefix.name + ".index")).items():
        if entry.dtype != _DT_FLOAT:
            continue
        raw = data[entry.offset : entry.offset + entry.size]
        if len(raw) != 4 * int(np.prod(entry.shape)):
            raise ModelPackError(f"{prefix.name}: variable {name} has {len(raw)} bytes for shape {entry.shape}")
        tensors[name] = np.frombuffer(raw, "<f4").reshape(entry.shape).astype(np.float32)
    return tensors
