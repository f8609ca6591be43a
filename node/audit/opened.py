"""Opens the audit trail of one process, if the config wants one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.audit.auditor import Auditor
from node.audit.syslog import SyslogSender
from node.audit.trail import AuditTrail
from node.config_sections import AuditSection, NodeSection, TlsSection
from node.errors import ConfigError
from node.metrics import Metrics


def syslog_sender(section: AuditSection, tls: TlsSection) -> SyslogSender | None:
    """The sender to the collector of the config; None: there is none."""
    return SyslogSender(section.syslog_host, section.syslog_port, tls.files()) if section.syslog_host else None


@contextmanager
def audit_trail(
    sections: tuple[NodeSection, AuditSection, TlsSection], folder: Path, process: str, ae_title: str, metrics: Metrics
) -> Iterator[Auditor | None]:
    """The auditor of the process called ``process``, until the block ends; None if the config wants no trail.

    Tells of the start and the stop of the application.

    Raises:
        ConfigError: the folder cannot be made.
    """
    node, section, tls = sections
    if not section.enabled:
        yield None
        return
    trail = AuditTrail(folder, process, metrics, syslog_sender(section, tls))
    try:
        trail.start()
    except OSError as error:
        raise ConfigError(f"node.folder: {folder}: cannot be made: {error.strerror}") from None
    auditor = Auditor(trail, "glionode", node.station_name, ae_title, section.patient_id)
    try:
        auditor.application_started()
        yield auditor
    finally:
        auditor.application_stopped()
        trail.stop()
