"""``glionode check`` names what is wrong, one line each."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audit_reader import Collector
from certificates import make_authority, server_context
from command_line import run_glionode
from faults import FakePacs, free_port
from lab import needs
from node_process import write_config
from small_disk import shown_at, small_disk

from node.scp.spool import Spool
from node.study import Destination

PARTS = (
    "config",
    "files",
    "series.rules",
    "scp.port",
    "web.port",
    "spool",
    "engine.database",
    "segmentation.models",
    "segmentation.device",
)


def check(tmp_path: Path, *destinations: Destination, **sections: dict[str, Any]) -> tuple[int, dict[str, str]]:
    """Exit code, and each line of the output by its part, ``ok`` or ``FAIL`` first."""
    result = run_glionode("check", "--config", write_config(tmp_path, destinations, **sections))
    lines = [line.split(": ", 1) for line in result.output.splitlines()]
    return result.exit_code, {head[5:]: f"{head[:5].strip()} {text}" for head, text in lines}


def failing(lines: dict[str, str]) -> set[str]:
    """The parts that are not well."""
    return {part for part, text in lines.items() if text.startswith("FAIL ")}


@pytest.mark.slow
def test_all_is_well(tmp_path: Path, models_folder: Path) -> None:
    """With model, free ports and a PACS that answers, every part is ok and the exit code 0; a second time, too."""
    with FakePacs() as pacs:
        for _ in range(2):
            code, lines = check(tmp_path, pacs.destination, models={"folder": str(models_folder)})
            assert (code, failing(lines)) == (0, set())
            assert list(lines) == [*PARTS, "destination pacs"]
    assert lines["destination pacs"] == f"ok PACS at 127.0.0.1:{pacs.port} answers C-ECHO"


def test_repair_of_uids_is_told(tmp_path: Path) -> None:
    """The check says that UIDs with leading zeros are received, if they are."""
    _, lines = check(tmp_path, scp={"uid_repair": "map"})
    assert lines["scp.uid_repair"].startswith("ok UIDs with leading zeros are received; results refer to them as they")
    assert "scp.uid_repair" not in check(tmp_path)[1]


def test_each_missing_part_is_named(tmp_path: Path) -> None:
    """A fresh folder without model and destination fails in these two parts only, and says what mends it."""
    code, lines = check(tmp_path)
    assert (code, failing(lines)) == (1, {"segmentation.models", "destination"})
    assert "glionode models pull anisotropic_nets_brats17" in lines["segmentation.models"]
    assert lines["destination"] == "FAIL none configured: results would go nowhere"


def test_check_makes_no_database(tmp_path: Path) -> None:
    """A node that never ran has none, which is in order; one whose studies are there must have one."""
    assert check(tmp_path)[1]["engine.database"] == "ok SQLite: none yet; the node creates it at its start"
    (tmp_path / "var" / "spool" / "1.2.3").mkdir()
    assert "is missing or empty, although" in check(tmp_path)[1]["engine.database"]
    assert not list((tmp_path / "var").glob("*.sqlite"))


def test_a_wrong_rule_is_named(tmp_path: Path) -> None:
    """A group of [series.rules] that does not exist fails the check, and the line names it."""
    code, lines = check(tmp_path, **{"series.rules": {"T3": ["haus"]}})
    assert code == 1
    assert lines["series.rules"].startswith("FAIL T3: unknown group")


def test_pack_that_glionode_does_not_know_is_told(tmp_path: Path) -> None:
    """A name in segmentation.models that no card has fails the check; those after it are checked all the same."""
    code, lines = check(tmp_path, segmentation={"models": ["br16_t1c2tc"]})
    assert code == 1
    assert lines["segmentation.models"].startswith("FAIL no model pack 'br16_t1c2tc'; known: ")


@pytest.mark.parametrize("section", ["scp", "web"])
def test_occupied_port(section: str, tmp_path: Path) -> None:
    """A port that something listens on is named by its key."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, lines = check(tmp_path, **{section: {"port": port}})
    assert code == 1
    assert f"FAIL cannot listen on 127.0.0.1:{port}: Address already in use" in lines[f"{section}.port"]


def test_address_of_another_machine(tmp_path: Path) -> None:
    """A host that is not this machine's (TEST-NET-1, RFC 5737) cannot be listened on."""
    code, lines = check(tmp_path, scp={"host": "192.0.2.1"})
    assert code == 1
    assert lines["scp.port"].startswith("FAIL cannot listen on 192.0.2.1:")


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_address_by_name_or_of_ipv6(host: str, tmp_path: Path) -> None:
    """An IPv6 address, or a name, is tried as what it is."""
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError:
        pytest.skip(f"this machine has no {host}")
    _, lines = check(tmp_path, scp={"host": host})
    assert lines["scp.port"].startswith("ok ")
    assert lines["scp.port"].endswith(" is free")


def test_unknown_name(tmp_path: Path) -> None:
    """A host name that nobody knows cannot be listened on."""
    code, lines = check(tmp_path, scp={"host": "no-such-host.invalid"})
    assert code == 1
    assert lines["scp.port"].startswith("FAIL cannot listen on no-such-host.invalid:")


def test_disabled_page_needs_no_port(tmp_path: Path) -> None:
    """Without the status page its port is not looked at."""
    assert "web.port" not in check(tmp_path, web={"enabled": False})[1]


@pytest.mark.slow
def test_dead_destination(tmp_path: Path) -> None:
    """Of several destinations the one that does not answer is named, with address and reason."""
    dead = Destination("dead", "DEAD", "127.0.0.1", free_port())
    with FakePacs() as pacs, FakePacs(is_rejecting=True) as rejecting:
        deaf = Destination("rejecting", "PACS", "127.0.0.1", rejecting.port)
        code, lines = check(tmp_path, pacs.destination, dead, deaf)
    assert code == 1
    assert failing(lines) == {"segmentation.models", "destination dead", "destination rejecting"}
    assert f"DEAD at 127.0.0.1:{dead.port} cannot be reached" in lines["destination dead"]
    assert "rejected the association" in lines["destination rejecting"]


@needs("openssl")
def test_destinations_of_other_kinds(tmp_path: Path) -> None:
    """A destination over TLS is asked over TLS; a DICOMweb service that is down is told without its URL."""
    own = make_authority(tmp_path / "authority").sign("node")
    with FakePacs(tls=server_context(own)) as pacs:
        file = write_config(tmp_path, [replace(pacs.destination, tls=own)])
        url = f"http://user:geheim@127.0.0.1:{free_port()}/dicom-web"
        with file.open("a") as text:
            text.write(f'commitment = true\n[[destination]]\nname = "archive"\nprotocol = "dicomweb"\nurl = "{url}"\n')
            text.write(f'[tls]\ncertificate_file = "{own.certificate_file}"\nkey_file = "{own.key_file}"\n')
            text.write(f'ca_file = "{own.ca_file}"\n')
        lines = run_glionode("check", "--config", file).output.splitlines()
    told = [line for line in lines if "destination " in line]
    without = "a report on an association of its own cannot count without scp.tls and tls.ca_file"
    assert told[0].endswith(f"PACS at 127.0.0.1:{pacs.port} answers C-ECHO over TLS; {without}")
    assert told[0].startswith("ok ")
    assert told[1].startswith("FAIL ")
    assert told[1].endswith("destination archive: cannot be reached")


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where the node's folder should be fails spool and database, and the other parts are still looked at."""
    (tmp_path / "var").write_text("a file")
    code, lines = check(tmp_path)
    assert code == 1
    assert failing(lines) == {"spool", "engine.database", "segmentation.models", "destination"}
    assert all(
        "Not a directory" in lines[part] or "File exists" in lines[part] for part in ("spool", "engine.database")
    )


def test_disk_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that makes no hard links, without which nothing is received, fails the spool."""

    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", fail)
    code, lines = check(tmp_path)
    assert code == 1
    assert lines["spool"] == f"FAIL {tmp_path / 'var' / 'spool'}: Operation not permitted"
    assert not [path for path in (tmp_path / "var" / "spool").rglob("*") if path.is_file()]


def test_spool_whose_disk_is_not_mounted(tmp_path: Path) -> None:
    """A spool that was on a disk of its own, which is not there, fails, and is left alone."""
    spool = tmp_path / "var" / "spool"
    spool.mkdir(parents=True)
    with small_disk(tmp_path / "disk", "4m") as disk, shown_at(spool, disk):
        begun = Spool(spool)
        begun.begin()
        begun.end()
    code, lines = check(tmp_path)
    assert code == 1
    assert "which is not mounted" in lines["spool"]
    assert list(spool.iterdir()) == []


def test_full_disk(tmp_path: Path) -> None:
    """Less free space than the watermark fails the spool, with both numbers."""
    code, lines = check(tmp_path, scp={"watermark_mebibytes": 2**40})
    assert code == 1
    assert lines["spool"].startswith("FAIL ")
    assert f"watermark {2**40} MiB" in lines["spool"]


def test_dead_database(tmp_path: Path) -> None:
    """A PostgreSQL that is not there fails the database, without its password in the output."""
    code, lines = check(tmp_path, engine={"database": f"postgresql://node:geheim@127.0.0.1:{free_port()}/node"})
    assert code == 1
    assert lines["engine.database"].startswith("FAIL PostgreSQL: ")
    assert "geheim" not in str(lines)


def test_absent_device(tmp_path: Path) -> None:
    """A GPU that is not there fails the device."""
    code, lines = check(tmp_path, segmentation={"device": "cuda:99"})
    assert code == 1
    assert lines["segmentation.device"].startswith("FAIL ")


def test_wrong_config_is_a_usage_error(tmp_path: Path) -> None:
    """A config with an unknown key ends with exit code 2 and names file and key, before anything is looked at."""
    result = run_glionode("check", "--config", write_config(tmp_path, scp={"prot": 104}))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "scp.prot: unknown key" in result.stderr
    assert str(tmp_path / "config.toml") in result.stderr


def test_files_of_tls_are_opened(tmp_path: Path) -> None:
    """Each broken TLS file is a line with key, path and what is wrong; a good one is told until when it is valid."""
    authority = make_authority(tmp_path / "authority")
    good = authority.issue("good", days=(-1, 365))

    def told(key_file: Path | None, certificate_file: Path | None) -> tuple[int, dict[str, str]]:
        files = {"key_file": str(key_file), "certificate_file": str(certificate_file), "ca_file": str(good.ca_file)}
        return check(tmp_path, scp={"tls": True}, tls=files)

    _, lines = told(good.key_file, good.certificate_file)
    assert lines["tls.certificate_file"].startswith(f"ok {good.certificate_file}: valid until ")
    assert "have it renewed" in lines["tls.ca_file"]
    _, lines = told(tmp_path / "none.key", good.certificate_file)
    assert lines["tls.key_file"] == f"FAIL {tmp_path}/none.key: cannot be read: No such file or directory"
    _, lines = told(authority.issue("other").key_file, good.certificate_file)
    assert "is not the key of the certificate in" in lines["tls.key_file"]
    expired = authority.issue("expired", days=(-9, -2))
    code, lines = told(expired.key_file, expired.certificate_file)
    assert code == 1
    assert lines["tls.certificate_file"].startswith(f"FAIL {expired.certificate_file}: expired on ")


def test_check_names_tls_at_one_side_only(tmp_path: Path) -> None:
    """A destination that expects TLS, configured without it, and the other way round: the line says so."""
    authority = make_authority(tmp_path / "authority")
    files = authority.issue("pacs")
    section = {"ca_file": str(authority.certificate_file)}
    with FakePacs(tls=server_context(files)) as pacs:
        _, lines = check(tmp_path, pacs.destination)
    assert "does it expect TLS (destination.tls)?" in lines["destination pacs"]
    with FakePacs() as pacs:
        _, lines = check(tmp_path, replace(pacs.destination, tls=files), tls=section)
    assert "TLS: the peer does not speak TLS on this connection" in lines["destination pacs"]


def test_audit_trail_is_checked(tmp_path: Path) -> None:
    """With an audit trail, its folder is named; a collector that is away or is not trusted fails with its address."""
    _, lines = check(tmp_path, audit={"enabled": True})
    assert lines["audit"] == f"ok {tmp_path}/var/audit; no collector"
    assert "audit" not in check(tmp_path)[1]
    authority = make_authority(tmp_path / "authority")
    tls = {"ca_file": str(authority.certificate_file)}
    with Collector(server_context(authority.issue("collector"))) as collector:  # which asks for a certificate
        audit = {"enabled": True, "syslog_host": "127.0.0.1", "syslog_port": collector.port}
        code, lines = check(tmp_path, audit=audit, tls=tls)
    assert code == 1
    assert f"FAIL collector 127.0.0.1:{collector.port} " in lines["audit.syslog_host"]
