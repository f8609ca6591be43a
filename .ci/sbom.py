"""Writes the bill of materials of one Python environment and of the model weights, as CycloneDX 1.6 JSON.

    sbom.py PYTHON FILE

The packages are listed by cyclonedx-py; the model packs come from the cards of node/methods/cards and weights,
with licence and the SHA-256 of each file, and the weights inside deepbet's wheel from
node/segmentation/wheel_weights.py. Nothing is written unless the result is valid by the schema.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[1]
WEIGHTS = """
import json
from node.segmentation import wheel_weights as weights
print(json.dumps([weights.DISTRIBUTION, weights.VERSION, weights.SHA256]))
"""


def packages(python: str) -> dict[str, Any]:
    """The bill of materials of the environment alone."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", python, "--pyproject", str(ROOT / "pyproject.toml")]
    command += ["--spec-version", "1.6", "--output-format", "JSON", "--output-reproducible", "--no-validate"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _file(owner: str, name: str, sha256: str) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": sha256}]
    return {"type": "file", "bom-ref": f"{owner}/{name}", "name": name, "hashes": hashes}


def model_packs() -> list[dict[str, Any]]:
    """Each model pack that glionode knows, with its files."""
    found = []
    methods = ROOT / "node" / "methods"
    for file in sorted([*methods.glob("cards/*.toml"), *methods.glob("weights/*/card.toml")]):
        card = tomllib.loads(file.read_text(encoding="utf-8"))
        reference = f"model-pack/{card['name']}"
        found.append(
            {
                "type": "machine-learning-model",
                "bom-ref": reference,
                "name": card["name"],
                "version": card["version"],
                "description": card["intended_use"],
                "licenses": [{"license": {"name": card["licence"]}}],
                "components": [_file(reference, each["path"], each["sha256"]) for each in card["files"]],
            }
            | _source(card)
        )
    return found


def _source(card: dict[str, Any]) -> dict[str, Any]:
    """Where a pack that is fetched comes from, and the digest of its converted weights; nothing for a shipped one."""
    if "source_url" not in card:
        return {}
    return {
        "externalReferences": [{"type": "distribution", "url": card["source_url"]}],
        "properties": [{"name": "glionode:tensors-sha256", "value": card["tensors_sha256"]}],
    }


def brain_mask(python: str, package: dict[str, Any]) -> dict[str, Any]:
    """The weights inside deepbet's wheel, which are code; their licence is the wheel's."""
    done = subprocess.run([python, "-c", WEIGHTS], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    name, version, digests = json.loads(done.stdout)
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model-pack/{name}",
        "name": f"{name} weights",
        "version": version,
        "licenses": package["licenses"],
        "components": [_file(f"model-pack/{name}", file, digest) for file, digest in digests.items()],
    }


def main(python: str, file: str) -> int:
    """Write ``file``; the exit status."""
    bill = packages(python)
    installed = {each["name"]: each for each in bill["components"]}
    bill["components"] += [*model_packs(), brain_mask(python, installed["deepbet"])]
    text = json.dumps(bill, indent=2, ensure_ascii=False) + "\n"
    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.stderr.write(f"not valid by CycloneDX 1.6: {fault}\n")
        return 1
    target = Path(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{target}: {len(bill['components'])} components, valid by CycloneDX 1.6\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
