"""The documents say what is so: links, commands, codes, figures."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from node import __version__, errors
from node.cli.main import glionode
from node.cli.options import MIRROR_VARIABLE
from node.config import load_config
from node.methods.card import KINDS, ExportedCard, NetworkSection, card_names, parse_card, read_card
from node.scp.status import STATUSES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])


def headings(text: str) -> set[str]:
    """Anchors of a document's headings, as code hosts make them."""
    titles = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(group: click.Group, prefix: str = "glionode") -> Iterator[str]:
    """Every command for people that does something, with the groups before it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            if hasattr(command, "default"):  # the group does something by itself
                yield f"{prefix} {name}"
            yield from commands(command, f"{prefix} {name}")
        elif not command.hidden:
            yield f"{prefix} {name}"


def load_script() -> ModuleType:
    """docs/conformance.py as a module."""
    spec = importlib.util.spec_from_file_location("conformance", ROOT / "docs" / "conformance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMMANDS = set(commands(glionode))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path):
    """Every relative link of a document names a file or folder that exists, and a heading in it if it names one."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in headings(target.read_text(encoding="utf-8"))):
            dead.append(link)
    assert not dead


def test_architecture_names_files_that_exist():
    """Every source file that docs/architecture.md names is there."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[`\s(]((?:\w+/)*\w+\.py)\b", text))
    files = {file.relative_to(ROOT).as_posix() for file in (*ROOT.glob("node/**/*.py"), *ROOT.glob("tests/*.py"))}
    assert named
    assert not {name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)}


def test_commands_that_documents_name_exist():
    """Every ``glionode ...`` in a document or the service file is a command of the command line."""
    unknown = set()
    for file in (*DOCUMENTS, ROOT / "config.toml", ROOT / "deploy" / "glionode.service"):
        text = file.read_text(encoding="utf-8")
        for found in re.findall(r"(?:`|bin/)glionode ([a-z]+)(?: ([a-z]+))?", text):
            names = [f"glionode {found[0]}", f"glionode {' '.join(found)}"]
            if not any(command == name or command.startswith(f"{name} ") for name in names for command in COMMANDS):
                unknown.add(names[0])
    assert not unknown


def test_readme_lists_every_command():
    """The README's table has one row for each command, and none besides."""
    rows = re.findall(r"(?m)^\| `(glionode [^`]+)` \|", README)
    listed = [re.match(r"glionode(?: [a-z]+)+", row)[0] for row in rows]
    assert sorted(listed) == sorted(COMMANDS)


def test_readme_states_options_that_exist():
    """Every option in the README's table belongs to the command of its row."""
    for row in re.findall(r"(?m)^\| `(glionode [^`]+)` \|", README):
        command: click.Command = glionode
        for name in re.match(r"glionode((?: [a-z]+)+)", row)[1].split():
            command = command.get_command(click.Context(command), name)
        command = command.commands[command.default] if hasattr(command, "default") else command
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--\w+", row)) <= known, row


def test_readme_make_commands_are_targets():
    """``make demo`` and ``make test``, the README's two commands, are in the Makefile; so is any other it names."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z]+):", makefile))
    named = set(re.findall(r"(?m)^    make ([a-z]+)", README)) | set(re.findall(r"`(?:\S+=\S+ )?make ([a-z]+)", README))
    assert {"demo", "test"} <= named <= targets


def test_readme_states_the_exit_codes():
    """The README's exit codes are those of the exception tree, and 0."""
    tree = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.GlionodeError)]
    listed = {int(code) for code in re.findall(r"(?m)^\| (\d) \|", README)}
    assert listed == {0} | {each.exit_code for each in tree}


def test_readme_names_the_model_and_its_mirror():
    """The README pulls the pack that the default config uses, and names the variable that the command line reads."""
    assert f"glionode models pull {load_config(ROOT / 'config.toml').segmentation.models[0]}" in README
    assert MIRROR_VARIABLE in README


def test_readme_figures_are_those_of_the_card():
    """Published accuracy in the README is the card's, and the card's is what its authors published."""
    card = read_card("anisotropic_nets_brats17")
    figures = re.findall(r"\d\.\d{3}", card.measured_accuracy)
    assert figures == ["0.905", "0.838", "0.786"]
    assert re.findall(r"\d\.\d{3}\b", README.partition("Published Dice")[2].partition(". After")[0]) == figures
    assert "46 cases" in card.measured_accuracy


@pytest.mark.parametrize("name", card_names())
def test_cards_are_complete(name: str):
    """Every card parses, fills every field, and gives each file a SHA-256, and a size if it is to be fetched."""
    card = read_card(name)
    assert card.name == name
    assert all((card.version, card.method, card.intended_use, card.licence, card.training_data, card.reference))
    assert card.files
    assert all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) for file in card.files)
    assert card.is_shipped or all(file.size_bytes for file in card.files)


CARDS = re.findall(r"(?ms)^```toml\n(.+?)^```$", (ROOT / "docs" / "models.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", CARDS)
def test_example_cards_are_cards(text: str):
    """Every example in docs/models.md is a card as it stands there, and the page has one for each foreign kind."""
    card = parse_card(text.encode(), Path("card.toml"))
    assert not card.is_own
    assert {parse_card(each.encode(), Path("card.toml")).kind for each in CARDS} == {
        "monai-bundle",
        "nnunet-v2",
        "onnx",
    }


def test_models_page_names_every_key_and_kind():
    """docs/models.md lists each key of a foreign card and each kind that an admin may add."""
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    listed = set(re.findall(r"`([\w-]+)`", rows))
    assert listed == set(ExportedCard.model_fields) - {"optional", "is_shipped"} | set(KINDS) - {"cascade"}
    assert set(re.findall(r"(?m)^(\w+) = ", text.partition("[network]\n")[2])) | {"multiple_of"} == set(
        NetworkSection.model_fields
    )


def test_changelog_names_the_version():
    """The newest entry of the changelog is the version of the package."""
    entries = re.findall(r"(?m)^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert entries[0] == __version__


def test_conformance_statement_is_up_to_date():
    """docs/conformance.md is what docs/conformance.py writes today; run it if this fails."""
    script = load_script()
    assert script.FILE.read_text(encoding="utf-8") == script.statement()


def test_conformance_statement_lists_every_status():
    """The statuses in docs/conformance.md that the node answers are exactly those of the code."""
    text = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    answered = text.partition("Statuses answered")[2].partition("C-ECHO")[0]
    listed = re.findall(r"(?m)^\| 0x([0-9A-F]{4}) \| (.+?) \| (.+?) \|$", answered)
    assert [(int(code, 16), name, when) for code, name, when in listed] == [
        (status.code, status.name, status.when_used) for status in STATUSES
    ]


def test_security_page_names_tests_that_exist():
    """Every test that docs/security.md names exists, and each row of its tables names at least one."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text))
    assert len(named) == len(set(re.findall(r"`tests/[^`]+`", text))) > 0
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).is_file() or f"def {test}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert not missing
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| an a", "| kind"))]
    assert not [row for row in rows if "::test_" not in row]


def test_licence_is_the_one_declared():
    """LICENSE holds the text of the licence that pyproject.toml names."""
    assert 'license = "MIT"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
