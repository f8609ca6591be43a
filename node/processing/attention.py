"""What the administrator should know of a study beside its state: corrections, conflicts, withdrawals.

All of it is read from the spool; the texts hold UIDs and counts, never a value of a header.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from node.scp.aside import CONFLICTS, SUPERSEDED, WITHDRAWN, versions

HELD = "held"
"""Attribute of a workflow: why the study is not done anew although its inputs changed; empty: it is not held."""


def attention_of_studies(spool_folder: Path, studies: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Study Instance UID to sentences about its corrections, conflicts and withdrawals; only of ``studies`` with some.

    Nothing is read of other studies: an archive may reject instances of studies that this node never had.

    Raises:
        OSError: a folder or record cannot be read.
    """
    found: dict[str, list[str]] = {}
    for uid, count in _counts(spool_folder / CONFLICTS, studies):
        text = f"{count} instances are in conflict, and wait for a decision: `glionode conflicts {uid}`"
        found.setdefault(uid, []).append(text)
    for uid, count in _counts(spool_folder / SUPERSEDED, studies):
        found.setdefault(uid, []).append(f"{count} instances were corrected")
    for uid in _held_in(spool_folder / WITHDRAWN, studies):
        if texts := _withdrawn(spool_folder, uid):
            found.setdefault(uid, []).extend(texts)
    return {uid: tuple(texts) for uid, texts in found.items()}


def _held_in(folder: Path, studies: Collection[str]) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir() if each.name in studies)
    except FileNotFoundError:
        return []


def _counts(folder: Path, studies: Collection[str]) -> Iterator[tuple[str, int]]:
    """Study Instance UID and number of its instances with versions in ``folder``."""
    for uid in _held_in(folder, studies):
        instances = {each.sop_instance_uid for each in versions(folder, uid)}
        if instances:
            yield uid, len(instances)


def _withdrawn(spool_folder: Path, study_instance_uid: str) -> list[str]:
    from node.scp.withdrawals import withdrawals_of  # deferred, so that commands that only list start fast

    reasons = Counter(each.text for each in withdrawals_of(spool_folder, study_instance_uid).values())
    return [f"{count} instances are withdrawn: {reason}" for reason, count in sorted(reasons.items())]


def held_text(attributes: Mapping[str, str]) -> tuple[str, ...]:
    """The sentence that a study waits for the administrator; none if it does not."""
    why = attributes.get(HELD)
    if not why:
        return ()
    return (f"{why} since its report, and not done anew by itself (assembly.corrections): `glionode retry`",)
