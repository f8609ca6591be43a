"""What stays of results that retention deleted: of which source they were made.

Their UIDs follow from the instances' UIDs, which an archive's correction keeps. A study that comes back when nothing
else is left of it would give other content the same UIDs, and the first content may still be at a destination. So one
small file stays for each deleted report, with the digest of a whole instance, which tells nothing of a patient.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from node.scp.aside import content_digest
from node.study import Contrast, Selection

SOURCE = "source"
"""Key of ``result.json``: `source_digest`."""

_DELETED = ".deleted"
"""The folder of these files in the folder of results, where a leading dot says that it is no workflow's."""


def source_digest(selection: Selection) -> str:
    """The digest of the instance from which the results have their identity: the first of T1c, by its UID.

    Raises:
        OSError: the file cannot be read.
    """
    return content_digest(selection.chosen[Contrast.T1C].instances[0].path)


def note_deletion(folder: Path) -> None:
    """Note the source of the report in ``folder``, which is to be deleted; nothing, if it holds none.

    Raises:
        OSError: a file cannot be read or written.
    """
    try:
        result: Any = json.loads((folder / "result.json").read_text("utf-8"))
    except FileNotFoundError:
        return
    except ValueError:
        result = None
    facts: dict[str, Any] = result if isinstance(result, dict) else {}
    if facts.get("state", "reported") != "reported":
        return
    note = _note(folder.parent, folder.name)
    note.parent.mkdir(exist_ok=True)
    # results of earlier versions do not tell their source: the note says that no source is the same
    note.write_text(str(facts.get(SOURCE, "")), "ascii")


def is_of_another_source(selection: Selection, work_folder: Path, workflow_id: str) -> bool:
    """True if results of this id were deleted, and were not made of the source that ``selection`` has now.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        noted = _note(work_folder, workflow_id).read_text("ascii")
    except FileNotFoundError:
        return False
    return noted != source_digest(selection)


def _note(work_folder: Path, workflow_id: str) -> Path:
    return work_folder / _DELETED / workflow_id
