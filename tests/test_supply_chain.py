"""The audit of dependencies, and the bill of materials."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from node.methods.card import card_names, read_card
from node.segmentation.wheel_weights import SHA256

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".venv-audit" / "bin" / "python"
KNOWN_FAULT = {"id": "CVE-2019-10906", "fix_versions": ["2.10.1"]}

PIP_AUDIT = """#!{python}
import json, sys
source = sys.argv[sys.argv.index("-s") + 1]
answers = json.loads({answers!r})[source]
answer = answers["known" if "-r" in sys.argv else "environment"]
if isinstance(answer, str):
    sys.exit("Traceback ...\\n" + answer)
json.dump({{"dependencies": answer, "fixes": []}}, sys.stdout)
sys.exit(any(package.get("vulns") for package in answer))
"""


def package(name: str, *faults: dict[str, Any]) -> dict[str, Any]:
    """A package that a source judged."""
    return {"name": name, "version": "1.0", "vulns": list(faults)}


KNOWING = [package("jinja2", KNOWN_FAULT)]
UNREACHABLE = {"known": "ConnectionError: api.example.org", "environment": "ConnectionError: api.example.org"}
BLIND = {"known": [{"name": "jinja2", "skip_reason": "not found"}], "environment": [package("numpy")]}


def audit(tmp_path: Path, **answers: Any) -> tuple[int, str]:
    """Exit status and statement of the audit with a pip-audit that gives ``answers``, by source."""
    program = tmp_path / "pip-audit"
    program.write_text(PIP_AUDIT.format(python=sys.executable, answers=json.dumps(answers)), encoding="utf-8")
    program.chmod(0o755)
    statement = tmp_path / "build" / "audit.txt"
    command = [sys.executable, str(ROOT / ".ci" / "audit.py"), sys.executable, str(statement), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout == statement.read_text(encoding="utf-8")
    return done.returncode, done.stdout


def test_unreachable_sources_are_told_and_fail_nothing(tmp_path):
    """Without any source the status is 0; the statement says which were tried, why not, and that none was used."""
    status, statement = audit(tmp_path, osv=UNREACHABLE, pypi=UNREACHABLE)
    assert status == 0
    assert "osv: not used: ConnectionError: api.example.org" in statement
    assert "NOT AUDITED: no source of vulnerabilities could be used" in statement
    assert "no known vulnerability" not in statement


def test_source_that_knows_nothing_is_no_audit(tmp_path):
    """A mirror that finds no vulnerability in anything is not believed, though it judges every package."""
    status, statement = audit(tmp_path, osv=UNREACHABLE, pypi=BLIND)
    assert status == 0
    assert "pypi: not used: it does not know the vulnerabilities of jinja2==2.10" in statement
    assert "NOT AUDITED" in statement


def test_known_vulnerability_fails(tmp_path):
    """A vulnerable package ends with status 1, and is named with the version that mends it."""
    fault = {"id": "CVE-2030-1", "fix_versions": ["1.1"]}
    knowing = {"known": KNOWING, "environment": [package("numpy", fault)]}
    status, statement = audit(tmp_path, osv=UNREACHABLE, pypi=knowing)
    assert status == 1
    assert "pypi: VULNERABLE: numpy 1.0: CVE-2030-1 (fixed in 1.1)" in statement


def test_clean_audit_names_what_was_not_judged(tmp_path):
    """Without a vulnerability the status is 0; packages that the source did not judge are listed, ours are not."""
    environment = [package("numpy"), *({"name": name, "skip_reason": "not found"} for name in ("torch", "glionode"))]
    status, statement = audit(tmp_path, osv={"known": KNOWING, "environment": environment}, pypi=UNREACHABLE)
    assert status == 0
    assert statement.splitlines()[1:] == [
        "osv: 1 packages judged",
        "osv: not judged: torch",
        "osv: no known vulnerability",
    ]


def test_tools_are_pinned_and_ci_runs_them():
    """The audit's tools are pinned to a version, and CI audits before the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tools = dict(each.split("==") for each in project["dependency-groups"]["audit"])
    assert set(tools) == {"pip-audit", "cyclonedx-bom"}
    assert "\nmake audit\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(not TOOLS.exists(), reason="the tools of make audit and make sbom are not installed")
def test_bill_of_materials_names_packages_and_weights(tmp_path):
    """The bill is valid CycloneDX 1.6, and names each requirement, and the licence and digests of each model pack."""
    file = tmp_path / "sbom.json"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(TOOLS), str(ROOT / ".ci" / "sbom.py"), sys.executable, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stderr  # it is validated before it is written
    bill = json.loads(file.read_text(encoding="utf-8"))
    parts = {part["name"]: part for part in bill["components"]}
    assert {"pydicom", "pynetdicom", "torch", "dbos"} <= set(parts)
    for name in card_names():
        card, pack = read_card(name), parts[name]
        assert pack["licenses"] == [{"license": {"name": card.licence}}]
        digests = {each["name"]: each["hashes"][0]["content"] for each in pack["components"]}
        assert digests == {each.path: each.sha256 for each in card.files}
    weights = parts["deepbet weights"]
    assert {each["name"]: each["hashes"][0]["content"] for each in weights["components"]} == SHA256
    assert weights["licenses"]
