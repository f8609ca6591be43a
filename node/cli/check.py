"""The command ``check``: tests each part that the node needs, with one finding per part."""

from __future__ import annotations

import errno
import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from node.cli.file_access import weak_files
from node.config import Config
from node.errors import GlionodeError
from node.study import WebDestination


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check: the part, whether it is in order, and a text for humans.

    ``is_warning``: the node works, but not as the config says; such a finding does not fail the check.
    """

    part: str
    is_well: bool
    text: str
    is_warning: bool = False

    @property
    def word(self) -> str:
        """How the line begins."""
        return "warn" if self.is_warning else "ok  " if self.is_well else "FAIL"


def check(config: Config, config_file: Path | None = None) -> Iterator[Finding]:
    """Check each part in turn. The check only creates missing folders; it changes nothing else."""
    yield Finding("config", True, f"valid; folder {config.folder}")
    weak = list(weak_files(config, config_file))
    yield from (Finding("files", False, line) for line in weak)
    if not weak:
        yield Finding("files", True, "open to no other account")
    yield _rules(config)
    yield _port("scp.port", config.scp.host, config.scp.port)
    if config.scp.uid_repair == "map":
        text = "UIDs with leading zeros are received; results refer to them as they are, which validators report"
        yield Finding("scp.uid_repair", True, text)
    if config.web.enabled:
        yield _port("web.port", config.web.host, config.web.port)
    if config.scp.tls or config.tls.certificate_file or config.tls.ca_file:
        yield from _tls(config)
    if config.audit.enabled:
        yield _audit(config)
    yield _spool(config)
    yield _database(config)
    yield from _models(config)
    yield _device(config)
    if config.notify.urls:
        yield _notify(config)
    if not config.destination:
        yield Finding("destination", False, "none configured: results would go nowhere")
    for section in config.destination:
        yield _destination(config, section.name)


def _rules(config: Config) -> Finding:
    from node.series.vocabulary import load_vocabulary

    try:
        load_vocabulary(dict(config.series.rules))
    except GlionodeError as error:
        return Finding("series.rules", False, str(error).removeprefix("series.rules").lstrip(".: "))
    count = sum(len(terms) for terms in config.series.rules.values())
    return Finding(
        "series.rules", True, f"{count} terms beside the shipped ones" if count else "the shipped terms alone"
    )


def _port(key: str, host: str, port: int) -> Finding:
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        places = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = next((each for each in places if each[0] == socket.AF_INET), places[0])
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        hint = " (is the node running?)" if error.errno == errno.EADDRINUSE else ""
        return Finding(key, False, f"cannot listen on {shown}: {error.strerror}{hint}")
    return Finding(key, True, f"{shown} is free")


def _tls(config: Config) -> Iterator[Finding]:
    """The files of [tls]: can they be read, do they belong together, until when are they valid?"""
    from node.dicom.certificates import validities
    from node.dicom.tls_profile import client_context, server_context

    files = config.tls.files()
    try:
        if config.scp.tls:
            server_context(files)
        client_context(files, ssl.SSLContext)
        for each in validities(files):
            text = each.remark or f"valid until {each.until:%Y-%m-%d}"
            yield Finding(each.key, each.is_valid, f"{each.file}: {text}")
    except GlionodeError as error:
        key, _, text = str(error).partition(": ")
        yield Finding(key, False, text)


def _audit(config: Config) -> Finding:
    from node.audit.opened import syslog_sender

    folder = config.audit_folder
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("audit", False, f"{folder}: cannot be written: {error.strerror}")
    sender = syslog_sender(config.audit, config.tls)
    if sender is None:
        return Finding("audit", True, f"{folder}; no collector")
    reason = sender.probe()
    text = f"collector {sender.address} {'answers' if reason is None else reason}"
    return Finding("audit.syslog_host", reason is None, text)


def _spool(config: Config) -> Finding:
    from node.scp.spool import Spool

    spool = Spool(config.spool_folder)
    try:
        spool.rehearse()
        free_mib = spool.free_bytes() // 2**20
    except OSError as error:
        return Finding("spool", False, f"{config.spool_folder}: {error.strerror}")
    except GlionodeError as error:
        return Finding("spool", False, str(error).removeprefix("node.folder: "))
    text = f"{config.spool_folder}: {free_mib} MiB free, watermark {config.scp.watermark_mebibytes} MiB"
    return Finding("spool", free_mib > config.scp.watermark_mebibytes, text)


def _database(config: Config) -> Finding:
    from node.processing.study_ledger import open_ledger

    kind = "PostgreSQL" if config.database_url.startswith("postgresql") else "SQLite"
    try:
        with open_ledger(config) as client:
            if client is None:
                return Finding("engine.database", True, f"{kind}: none yet; the node creates it at its start")
            count = len(client.workflows("process"))
    except OSError as error:
        return Finding("engine.database", False, f"{kind}: {error.filename}: {error.strerror}")
    except GlionodeError as error:
        return Finding("engine.database", False, f"{kind}: {str(error).removeprefix('engine.database: ')}")
    return Finding("engine.database", True, f"{kind}: {count} studies recorded")


def _models(config: Config) -> Iterator[Finding]:
    """Each listed pack. One that is not installed is no failure where another one of the list runs in its place."""
    from node.methods.registry import faults, installed_names, is_missing

    key, folder, names = "segmentation.models", config.models_folder, config.segmentation.models
    at_hand = installed_names(names, folder)
    for name in names:
        found = faults(name, folder)
        if not found:
            yield Finding(key, True, f"{name}: every file matches its card")
        elif at_hand and is_missing(name, folder):
            text = f"until then {' or '.join(at_hand)} runs in its place, for exams that it fits"
            yield Finding(key, True, f"{found[0]}; {text}", is_warning=True)
        else:
            yield from (Finding(key, False, fault) for fault in found)


def _device(config: Config) -> Finding:
    from node.segmentation.device import choose_device, describe_device

    try:
        device = choose_device(config.segmentation.device)
    except GlionodeError as error:
        return Finding("segmentation.device", False, str(error))
    return Finding("segmentation.device", True, describe_device(device))


def _notify(config: Config) -> Finding:
    from node.notify.services import unknown_services

    unknown = unknown_services(config.notify)
    text = f"no service understands {', '.join(unknown)}" if unknown else f"{len(config.notify.urls)} service(s)"
    return Finding("notify", not unknown, text)


def _destination(config: Config, name: str) -> Finding:
    from node.scu.store import echo
    from node.scu.stow import probe

    part, timeout_seconds = f"destination {name}", config.delivery.timeout_seconds
    destination = next(each for each in config.destinations() if each.name == name)
    if isinstance(destination, WebDestination):
        reason = probe(destination, timeout_seconds)
        return Finding(part, reason is None, reason or "answers DICOMweb")
    reason = echo(destination, config.scp.ae_title, timeout_seconds)
    address = f"{destination.ae_title} at {destination.host}:{destination.port}"
    answers = "answers C-ECHO over TLS" if destination.tls else "answers C-ECHO"
    if destination.commitment and destination.tls and not (config.scp.tls and config.tls.ca_file):
        # some peers report on the association of the request alone
        answers += "; a report on an association of its own cannot count without scp.tls and tls.ca_file"
    return Finding(part, reason is None, f"{address} {answers}" if reason is None else f"{address}: {reason}")
