"""``glionode bench receive``: the receiver against DCMTK's storescp, the cost of flushing, and the receiver's memory
over many instances and while one large instance arrives.

DCMTK's ``storescu`` sends to both over loopback. A spool in memory, where flushing costs nothing, shows the share of
the disk.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from glionode_bench.receiver_process import AE_TITLE, DCMTK_ENVIRONMENT, HOST, resident_mebibytes, running, scratch
from node.errors import ConfigError, RetryableError

SLICES = 176
STEPS = 4  # number of memory measurements
_BATCH = 1000
_IN_MEMORY = Path("/dev/shm")
_ROOT = "1.2.826.0.1.3680043.10.1462.8"
_NUMBER = f"{_ROOT}.10000000"  # all UIDs have this length, so that one can replace another in encoded bytes
_LOOK_SECONDS = 0.02

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Speed:
    """Time for a series of `SLICES` instances over ``associations`` associations at once: the best of three runs."""

    receiver: str
    associations: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of the receiver after ``instances`` instances, and their mean rate until then."""

    instances: int
    resident_mebibytes: float
    instances_per_second: float


@dataclass(frozen=True, slots=True)
class Large:
    """Resident memory of the receiver before one large instance, and its maximum while that is received and stored."""

    mebibytes: int
    before_mebibytes: float
    most_mebibytes: float
    seconds: float


def bench(
    memory_instances: int, large_mebibytes: int, progress: Progress | None
) -> tuple[list[Speed], list[Memory], Large]:
    """Speed of each receiver; memory of glionode's over ``memory_instances``, and for one of ``large_mebibytes``.

    Raises:
        ConfigError: DCMTK is not installed.
        RetryableError: an instance was not stored, or a receiver did not start.
    """
    report = progress or (lambda _what, _share: None)
    programs = {name: _dcmtk(name) for name in ("storescu", "storescp")}
    with tempfile.TemporaryDirectory(prefix="glionode-bench-") as name:
        folder = Path(name)
        report("writing instances", 0.0)
        series = _write_instances(folder / "series", SLICES, 256)
        speeds = []
        for receiver in ("storescp", "storescp in memory", "glionode", "glionode in memory"):
            if receiver.endswith("memory") and not _IN_MEMORY.is_dir():
                continue
            report(receiver, 0.1)
            speeds += _speeds(receiver, programs, folder, series)
        large = _large(programs["storescu"], folder, large_mebibytes, report)
        return speeds, _memory(programs["storescu"], folder, memory_instances, report), large


def _speeds(receiver: str, programs: dict[str, Path], folder: Path, series: Sequence[Path]) -> list[Speed]:
    program = programs["storescp"] if receiver.startswith("storescp") else None
    found = []
    for associations in (1, 4):
        seconds = []
        for _ in range(3):
            with (
                scratch(_IN_MEMORY if receiver.endswith("memory") else folder) as spool,
                running(program, spool) as (
                    port,
                    _,
                ),
            ):
                seconds.append(_send(programs["storescu"], port, series, associations))
                count = sum(1 for path in spool.rglob("*") if path.is_file())
            if count != len(series):
                raise RetryableError(f"{receiver}: {count} of {len(series)} instances arrived")
        found.append(Speed(receiver, associations, min(seconds)))
    return found


def _memory(storescu: Path, folder: Path, instances: int, report: Progress) -> list[Memory]:
    found = []
    with scratch(folder) as spool, running(None, spool) as (port, pid):
        _send(storescu, port, _write_instances(folder / "first", 1, 16), 1)
        found.append(Memory(0, resident_mebibytes(pid), 0.0))
        sent, seconds = 0, 0.0
        while sent < instances:
            report(f"{sent} of {instances} instances", 0.5 + sent / instances / 2)
            batch = _write_instances(folder / "batch", min(_BATCH, instances - sent), 16, 1 + sent)
            seconds += _send(storescu, port, batch, 1)
            sent += len(batch)
            shutil.rmtree(folder / "batch")
            if sent * STEPS // instances > (sent - len(batch)) * STEPS // instances:
                found.append(Memory(sent, resident_mebibytes(pid), sent / seconds))
    return found


def _large(storescu: Path, folder: Path, mebibytes: int, report: Progress) -> Large:
    report(f"one instance of {mebibytes} MiB", 0.5)
    with scratch(folder) as spool, running(None, spool) as (port, pid):
        _send(storescu, port, _write_instances(folder / "small", 1, 16), 1)
        before = most = resident_mebibytes(pid)
        file = _write_multi_frame(folder / "large.dcm", mebibytes)
        begun = time.perf_counter()
        (process,) = _begin_sending(storescu, port, [file], 1)
        while process.poll() is None:
            most = max(most, resident_mebibytes(pid))
            time.sleep(_LOOK_SECONDS)
        if process.returncode:
            raise RetryableError(f"storescu ended with status {process.returncode}")
        return Large(mebibytes, before, max(most, resident_mebibytes(pid)), time.perf_counter() - begun)


def _send(storescu: Path, port: int, files: Sequence[Path], associations: int) -> float:
    """Seconds until all files have been sent and answered, with each association in a process of its own."""
    begun = time.perf_counter()
    codes = [process.wait() for process in _begin_sending(storescu, port, files, associations)]
    if any(codes):
        raise RetryableError(f"storescu ended with status {max(codes)}")
    return time.perf_counter() - begun


def _begin_sending(
    storescu: Path, port: int, files: Sequence[Path], associations: int
) -> list[subprocess.Popen[bytes]]:
    return [
        subprocess.Popen(
            [str(storescu), "-R", "-aec", AE_TITLE, HOST, str(port), *map(str, files[number::associations])],
            env=os.environ | DCMTK_ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(associations)
    ]


def _dcmtk(name: str) -> Path:
    """Path of DCMTK's program; pynetdicom installs another one of the same name into the virtual environment."""
    for folder in os.get_exec_path():
        program = Path(folder) / name
        if program.is_file() and b"dcmtk" in subprocess.run([program, "--version"], capture_output=True).stdout:
            return program
    raise ConfigError(f"{name} of DCMTK is not installed (Debian: apt-get install dcmtk)")


def _write_instances(folder: Path, count: int, size: int, first: int = 0) -> list[Path]:
    """Write ``count`` MR instances of one series, ``size`` x ``size`` pixels each."""
    content = _encoded(MRImageStorage, size, None, bytes(2 * size * size))
    folder.mkdir(parents=True)
    files = []
    for number in range(first, first + count):
        uid = f"{_ROOT}.{10000000 + number}"
        files.append(folder / f"{number}.dcm")
        files[-1].write_bytes(content.replace(_NUMBER.encode(), uid.encode()))
    return files


def _write_multi_frame(file: Path, mebibytes: int) -> Path:
    """Write one Enhanced MR instance of ``mebibytes``, in frames of 2 MiB of zeros that take no space on the disk."""
    content = _encoded(EnhancedMRImageStorage, 1024, mebibytes // 2, b"")
    length_bytes = mebibytes << 20
    assert content.endswith(b"OW\0\0\0\0\0\0")  # the empty pixel data
    with file.open("wb") as stream:
        stream.write(content[:-4] + struct.pack("<L", length_bytes))
        stream.truncate(len(content) + length_bytes)
    return file


def _encoded(sop_class: UID, size: int, frames: int | None, pixels: bytes) -> bytes:
    instance = Dataset()
    instance.SOPClassUID, instance.SOPInstanceUID = sop_class, _NUMBER
    instance.StudyInstanceUID, instance.SeriesInstanceUID = f"{_ROOT}.1", f"{_ROOT}.2"
    instance.PatientName, instance.PatientID, instance.Modality = "BENCH", "BENCH", "MR"
    instance.Rows = instance.Columns = size
    if frames is not None:
        instance.NumberOfFrames = frames
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.BitsAllocated = instance.BitsStored = 16
    instance.HighBit, instance.PixelRepresentation = 15, 0
    instance.PixelData = pixels
    instance["PixelData"].VR = "OW"
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, instance, enforce_file_format=True)
    return buffer.getvalue()
