"""Audits the packages of one Python environment for known vulnerabilities, by pip-audit.

    audit.py PYTHON STATEMENT [PIP_AUDIT]

A known vulnerability ends with status 1. A source of vulnerabilities that cannot be reached, or that does not know a
vulnerability which is known for years (a mirror without such data answers "none" for every package), is told; if no
source is left, nothing was audited: the statement says so, and the status is 0, for that is no fault of the packages.
Packages that a source cannot judge are listed in the statement.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

SOURCES = ("osv", "pypi")
KNOWN = "jinja2==2.10"  # CVE-2019-10906, and others since
OURS = {"glionode", "glionode-bench"}
SECONDS = 300


def ask(pip_audit: list[str], source: str, *arguments: str) -> tuple[list[dict], str]:
    """The packages with their vulnerabilities; or none, and why there is no answer."""
    command = [*pip_audit, "-s", source, "-f", "json", "--progress-spinner", "off", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [], f"no answer within {SECONDS} s"
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines() or ["no answer"]
        return [], lines[-1][:300]


def knows_vulnerabilities(pip_audit: list[str], source: str) -> str:
    """Why ``source`` is of no use; empty if it knows `KNOWN`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "known.txt"
        file.write_text(KNOWN + "\n")
        found, reason = ask(pip_audit, source, "--no-deps", "--disable-pip", "-r", str(file))
    if any(package.get("vulns") for package in found):
        return ""
    return reason or f"it does not know the vulnerabilities of {KNOWN}"


def audit(python: str, pip_audit: list[str]) -> tuple[int, list[str]]:
    """Exit status and the lines of the statement."""
    lines = [f"Audit of {python}, {datetime.now(UTC):%Y-%m-%d}"]
    site = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", site], capture_output=True, text=True, check=True).stdout.strip()
    for source in SOURCES:
        if reason := knows_vulnerabilities(pip_audit, source):
            lines.append(f"{source}: not used: {reason}")
            continue
        found, reason = ask(pip_audit, source, "--path", packages)
        if not found:
            lines.append(f"{source}: not used: {reason or 'it names no package'}")
            continue
        judged = [package for package in found if "vulns" in package]
        lines.append(f"{source}: {len(judged)} packages judged")
        skipped = sorted(package["name"] for package in found if "vulns" not in package and package["name"] not in OURS)
        lines += [f"{source}: not judged: {name}" for name in skipped]
        vulnerable = [
            f"{source}: VULNERABLE: {package['name']} {package['version']}: {fault['id']}"
            f" (fixed in {', '.join(fault['fix_versions']) or 'no version'})"
            for package in judged
            for fault in package["vulns"]
        ]
        return (1 if vulnerable else 0), lines + (vulnerable or [f"{source}: no known vulnerability"])
    return 0, [*lines, "NOT AUDITED: no source of vulnerabilities could be used"]


def main(python: str, statement: str, pip_audit: str = "") -> int:
    """Audit, write the statement and say it; the exit status."""
    status, lines = audit(python, [pip_audit] if pip_audit else [sys.executable, "-m", "pip_audit"])
    file = Path(statement)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write(file.read_text(encoding="utf-8"))
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
