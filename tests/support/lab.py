"""The test laboratory: a real PACS (Orthanc), a second vendor's SCU (DCMTK), validators, independent readers (dcmqi).

Everything stays on 127.0.0.1. What starts here is stopped here; what a program printed is part of the failure text.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest
import SimpleITK
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session
from faults import free_port
from pydicom import Dataset, dcmread

from node.study import TlsFiles

LOOPBACK = "127.0.0.1"
PIXELMED_JAR = "/usr/share/java/pixelmed.jar"
_FOLDER = Path(__file__).parents[1] / "end_to_end"
_DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_VENV_BIN = Path(sys.executable).parent
# DCMTK and Orthanc as Debian builds them leave Nagle's algorithm on: 40 ms for each instance
_NO_DELAY = {"TCP_NODELAY": "1"}
_PROGRAM_LIMIT_SECONDS = 240
_ORTHANC_LIMIT_SECONDS = 60  # to start, and to stop


def find_program(name: str) -> Path | None:
    """Where the system's (or, for dcmqi, the virtual environment's) program lies; None if it is not installed.

    The system comes first: pynetdicom puts a ``storescu`` and an ``echoscu`` of its own into every virtual environment.
    """
    if "/" in name:
        return Path(name) if Path(name).exists() else None
    folders = [entry for entry in os.get_exec_path() if not (Path(entry).parent / "pyvenv.cfg").exists()]
    found = shutil.which(name, path=os.pathsep.join([*folders, "/usr/sbin", str(_VENV_BIN)]))
    return Path(found) if found else None


def _installed(name: str) -> Path:
    program = find_program(name)
    if program is None:
        raise FileNotFoundError(f"{name} is not installed (.ci/packages lists the system packages)")
    return program


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip the test if a program (name, or absolute path) is missing; under CI=true it runs, and fails."""
    missing = [name for name in programs if find_program(name) is None]
    is_ci = os.environ.get("CI") == "true"
    return pytest.mark.skipif(bool(missing) and not is_ci, reason=f"not installed: {', '.join(missing)}")


def run_program(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; ``stdout`` holds both its streams, whatever the exit status."""
    return subprocess.run(
        [_installed(name), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | _NO_DELAY,
        timeout=_PROGRAM_LIMIT_SECONDS,
        check=False,
    )


def _checked(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode != 0:
        raise RuntimeError(f"{Path(done.args[0]).name} ended with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def is_listening(port: int, host: str = LOOPBACK) -> bool:
    """True if a connection to the port is accepted."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], timeout_seconds: float, message: str | Callable[[], str]) -> None:
    """Return as soon as ``condition()`` is true.

    Raises:
        AssertionError: with ``message``, when ``timeout_seconds`` have passed.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            text = message if isinstance(message, str) else message()
            raise AssertionError(f"not within {timeout_seconds:g} s: {text}")
        time.sleep(0.05)


@functools.cache
def _loopback_library() -> Path:
    """Compile lobind.c, once for all tests."""
    folder = Path(tempfile.mkdtemp(prefix="lobind-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = folder / "lobind.so"
    _checked(run_program("cc", "-shared", "-fPIC", "-O1", "-o", library, _FOLDER / "lobind.c", "-ldl"))
    return library


class Orthanc:
    """A PACS: Orthanc on free loopback ports, in a folder of its own, gone when the ``with`` block ends.

    The MR series of each stable study are routed, once, to the modality NODE (``node_ae_title``, ``node_port``), which
    may also ask for storage commitment. Any peer may store and echo, in ``transfer_syntaxes`` if they are given; with
    ``tls``, only over TLS and with a certificate.
    """

    ae_title = "PACS"

    def __init__(
        self,
        node_ae_title: str,
        node_port: int,
        stable_seconds: int = 1,
        transfer_syntaxes: Sequence[str] = (),
        tls: TlsFiles | None = None,
    ) -> None:
        self._accepted = {"AcceptedTransferSyntaxes": list(transfer_syntaxes)} if transfer_syntaxes else {}
        self.dicom_port, self.http_port = free_port(), free_port()
        self.url = f"http://{LOOPBACK}:{self.http_port}"
        self._node = {"AET": node_ae_title, "Host": LOOPBACK, "Port": node_port, "AllowStorageCommitment": True}
        self._stable_seconds = stable_seconds
        self._tls: dict[str, Any] = {}
        if tls:
            self._node["UseDicomTls"] = True
            self._tls = {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": str(tls.certificate_file),
                "DicomTlsPrivateKey": str(tls.key_file),
                "DicomTlsTrustedCertificates": str(tls.ca_file),
                "DicomTlsRemoteCertificateRequired": True,
            }

    def __enter__(self) -> Self:
        program, library = _installed("Orthanc"), _loopback_library()
        self._folder = tempfile.TemporaryDirectory(prefix="orthanc-")
        folder = Path(self._folder.name)
        configuration = folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(folder)), encoding="utf-8")
        self._log_file = folder / "orthanc.log"
        environment = os.environ | _NO_DELAY | {"LD_PRELOAD": str(library)}
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [program, configuration], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=folder
            )
        self.pid = self._process.pid
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=30)  # no proxy to loopback
        self._session = create_session()
        self._session.trust_env = False
        self._dicomweb = DICOMwebClient(f"{self.url}/dicom-web", session=self._session)
        try:
            wait_until(self._is_ready, _ORTHANC_LIMIT_SECONDS, lambda: f"Orthanc answers\n{self.log()}")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"Orthanc's log ends:\n{self.log()[-4000:]}")
        self._stop()

    def log(self) -> str:
        """What Orthanc has logged."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")

    def rest(self, path: str) -> Any:
        """GET from Orthanc's own REST interface, parsed."""
        return self._http.get(path).raise_for_status().json()

    def upload(self, path: Path) -> None:
        """Store one DICOM file over HTTP."""
        self._http.post("/instances", content=path.read_bytes()).raise_for_status()

    def send(self, modality: str, sop_instance_uid: str) -> bool:
        """Let Orthanc send an instance by C-STORE; True if the modality took it."""
        (found,) = self.find(sop_instance_uid)
        return self._http.post(f"/modalities/{modality}/store", content=found).is_success

    def find(self, sop_instance_uid: str) -> list[str]:
        """Orthanc's own identifiers of the instances under this UID."""
        found = self._http.post("/tools/lookup", content=sop_instance_uid).raise_for_status().json()
        return [str(each["ID"]) for each in found if each["Type"] == "Instance"]

    def stored(self, sop_instance_uid: str) -> Dataset:
        """The instance under this UID as it was received."""
        (found,) = self.find(sop_instance_uid)
        return dcmread(BytesIO(self._http.get(f"/instances/{found}/file").raise_for_status().content))

    def delete(self, path: str) -> None:
        """DELETE in Orthanc's own REST interface."""
        self._http.delete(path).raise_for_status()

    def studies(self) -> list[str]:
        """The Study Instance UIDs it holds."""
        return sorted(str(study["MainDicomTags"]["StudyInstanceUID"]) for study in self.rest("/studies?expand"))

    def instances(self, study_instance_uid: str, modality: str) -> list[Dataset]:
        """The study's instances of one modality, fetched by DICOMweb (QIDO-RS, then WADO-RS)."""
        found = self._dicomweb.search_for_series(study_instance_uid, search_filters={"Modality": modality})
        uids = [Dataset.from_json(series).SeriesInstanceUID for series in found]
        return [instance for uid in uids for instance in self._dicomweb.retrieve_series(study_instance_uid, uid)]

    def _configuration(self, folder: Path) -> dict[str, Any]:
        return {
            **self._accepted,
            **self._tls,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [str(_DICOMWEB_PLUGIN)],
            "LuaScripts": [str(_FOLDER / "route.lua")],
            "UserMetadata": {"Routed": 5000},
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "DicomAet": self.ae_title,
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowStore": True,
            "UnknownSopClassAccepted": True,  # label map segmentations are newer than this Orthanc
            "OverwriteInstances": False,
            "SyncStorageArea": False,
            "SaveJobs": False,
            "StableAge": self._stable_seconds,
            "DicomModalities": {"NODE": self._node},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
        }

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"Orthanc ended with status {self._process.returncode}:\n{self.log()}")
        try:
            return self._http.get("/system").is_success and is_listening(self.dicom_port)
        except httpx.TransportError:
            return False

    def _stop(self) -> None:
        self._http.close()
        self._session.close()
        self._process.terminate()
        try:
            self._process.wait(_ORTHANC_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def echoscu(host: str, port: int, called: str, calling: str) -> None:
    """C-ECHO by DCMTK.

    Raises:
        RuntimeError: not answered with Success; the text is echoscu's output.
    """
    _checked(run_program("echoscu", "-aet", calling, "-aec", called, host, str(port)))


def storescu(host: str, port: int, called: str, calling: str, paths: Sequence[Path], extra: Sequence[str] = ()) -> None:
    """C-STORE the files on one association by DCMTK. ``extra``: more of storescu's options.

    Raises:
        RuntimeError: an instance was not answered with Success; the text is storescu's output.
    """
    # -R: only the contexts the files need; with its full list, storescu runs out of contexts before Segmentation
    _checked(run_program("storescu", "-v", "-R", *extra, "-aet", calling, "-aec", called, host, str(port), *paths))


def dciodvfy_errors(path: Path) -> list[str]:
    """The errors dicom3tools finds in one object against its IOD."""
    return _error_lines(run_program("dciodvfy", "-new", path).stdout)


def dcentvfy_errors(paths: Sequence[Path]) -> list[str]:
    """The errors dicom3tools finds across objects: attributes of one entity that differ between its instances."""
    return _error_lines(run_program("dcentvfy", *paths).stdout)


def _error_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(("Error", "Abort"))]


def pixelmed_output(path: Path) -> str:
    """What PixelMed prints when it validates an SR."""
    limits = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("TotalOp", "ExprGrp", "ExprOp")]
    # in so short a life a compiler that optimises costs two thirds of the time
    options = [*limits, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xss64m", "-Djava.awt.headless=true"]
    validator = ("-cp", PIXELMED_JAR, "com.pixelmed.validate.DicomSRValidator")
    return run_program("java", *options, *validator, path).stdout


def pixelmed_sr_problems(path: Path) -> list[str]:
    """What PixelMed finds wrong with a TID 1500 report; empty if it recognised the template and validated all of it."""
    output = pixelmed_output(path)
    expected = ("Root Template TID_1500", "Root Template Validation Complete")
    return _error_lines(output) + [f"not said: {text}\n{output}" for text in expected if text not in output]


def read_seg_with_dcmqi(path: Path, folder: Path) -> dict[int, SimpleITK.Image]:
    """Each segment of a SEG as dcmqi reads it: segment number to an image (non-zero inside) placed in LPS millimetres.

    ``SimpleITK.GetArrayFromImage`` gives the array in ``zyx`` order. ``folder`` takes dcmqi's files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = ("--outputDirectory", folder, "--outputType", "nrrd", "--prefix", "segment")
    output = _checked(run_program("segimage2itkimage", "--inputDICOM", path, *options))
    images = {int(file.stem.removeprefix("segment-")): SimpleITK.ReadImage(str(file)) for file in folder.glob("*.nrrd")}
    if not images:
        raise RuntimeError(f"segimage2itkimage wrote no segment:\n{output}")
    return images


def read_sr_with_dcmqi(path: Path) -> dict[str, Any]:
    """A TID 1500 report as dcmqi reads it (the JSON of ``tid1500reader``)."""
    with tempfile.TemporaryDirectory(prefix="dcmqi-") as folder:
        file = Path(folder) / "report.json"
        _checked(run_program("tid1500reader", "--inputDICOM", path, "--outputMetadata", file))
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report
