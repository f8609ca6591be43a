"""``glionode check``: is everything there that the node needs? One finding per part."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from node.config import Config
from node.errors import GlionodeError


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check: what was looked at, whether it is well, and what was seen."""

    part: str
    is_well: bool
    text: str


def check(config: Config) -> Iterator[Finding]:
    """Look at each part in turn. Nothing is changed but that folders are made."""
    yield Finding("config", True, f"valid; folder {config.folder}")
    yield _port("scp.port", config.scp.host, config.scp.port)
    if config.web.enabled:
        yield _port("web.port", config.web.host, config.web.port)
    yield _spool(config)
    yield _database(config)
    yield _model(config)
    yield _device(config)
    if not config.destination:
        yield Finding("destination", False, "none configured: results would go nowhere")
    for section in config.destination:
        yield _destination(config, section.name)


def _port(key: str, host: str, port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            hint = " (is the node running?)" if error.errno == errno.EADDRINUSE else ""
            return Finding(key, False, f"cannot listen on {host}:{port}: {error.strerror}{hint}")
    return Finding(key, True, f"{host}:{port} is free")


def _spool(config: Config) -> Finding:
    from node.scp.spool import Spool

    try:
        free_mib = Spool(config.spool_folder).free_bytes() // 2**20
    except OSError as error:
        return Finding("spool", False, f"{config.spool_folder}: {error.strerror}")
    text = f"{config.spool_folder}: {free_mib} MiB free, watermark {config.scp.watermark_mebibytes} MiB"
    return Finding("spool", free_mib > config.scp.watermark_mebibytes, text)


def _database(config: Config) -> Finding:
    from node.engine import WorkflowClient

    kind = "PostgreSQL" if config.database_url.startswith("postgresql") else "SQLite"
    try:
        client = WorkflowClient(config)
        try:
            count = len(client.workflows("process"))
        finally:
            client.close()
    except GlionodeError as error:
        return Finding("engine.database", False, f"{kind}: {str(error).removeprefix('engine.database: ')}")
    return Finding("engine.database", True, f"{kind}: {count} studies recorded")


def _model(config: Config) -> Finding:
    from node.segmentation.packs import verify

    name = config.segmentation.model
    try:
        verify(name, config.models_folder)
    except GlionodeError as error:
        return Finding("segmentation.model", False, str(error))
    return Finding("segmentation.model", True, f"{name}: every file matches its card")


def _device(config: Config) -> Finding:
    from node.segmentation.device import choose_device, describe_device

    try:
        device = choose_device(config.segmentation.device)
    except GlionodeError as error:
        return Finding("segmentation.device", False, str(error))
    return Finding("segmentation.device", True, describe_device(device))


def _destination(config: Config, name: str) -> Finding:
    from node.scu import echo

    section = next(section for section in config.destination if section.name == name)
    reason = echo(section.destination(config.tls), config.scp.ae_title, config.delivery.timeout_seconds)
    address = f"{section.ae_title} at {section.host}:{section.port}"
    text = f"{address} answers C-ECHO" if reason is None else f"{address}: {reason}"
    return Finding(f"destination {name}", reason is None, text)
