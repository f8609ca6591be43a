"""What happened to a study's instances in the spool beside arriving: corrected, withdrawn, in conflict.

File names alone say that a study is complete, not that it is unchanged: a correction keeps every name. The lines of an
`InputState` change with each correction, decision and withdrawal, and become part of the digests of a request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from node.dicom import uids
from node.errors import InstanceRefused
from node.scp.aside import CONFLICTS, SUPERSEDED, WITHDRAWN, Version, content_digest, versions
from node.scp.rejection_note import EXPIRED
from node.scp.withdrawals import Withdrawal, withdrawals_of
from node.study import Instance, Selection, Series, Study


@dataclass(frozen=True, slots=True)
class InputState:
    """The state of a study's folder. To be read before the headers are: a later correction then changes it.

    Attributes:
        superseded: the versions that were in use, by the file that is in use now.
        withdrawn: SOP Instance UID to why the instance is no longer input.
        conflicts: one line for each open conflict.
        changes: lines that change with each correction and withdrawal.
    """

    superseded: Mapping[Path, tuple[Version, ...]] = field(default_factory=dict)
    withdrawn: Mapping[str, Withdrawal] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """What distinguishes this state from every other state of the study."""
        return (*self.changes, *self.conflicts)

    @property
    def revision(self) -> str:
        """The digest of corrections and withdrawals; empty: there are none."""
        return uids.digest(self.changes)[:32] if self.changes else ""

    def without_expired(self) -> InputState:
        """This state, except that what an archive's retention policy withdrew is input.

        A report that was made of it stays right: nothing is wrong with these images.
        """
        kept = {sop: each for sop, each in self.withdrawn.items() if each.reason != EXPIRED}
        return replace(self, withdrawn=kept)

    @property
    def withdrawn_text(self) -> str:
        """How many instances are withdrawn, and why; empty: none."""
        reasons = Counter(each.text for each in self.withdrawn.values())
        return "; ".join(f"{count} instances are withdrawn: {text}" for text, count in sorted(reasons.items()))


def read_state(study_folder: Path) -> InputState:
    """The state of a study in the spool; of any other folder, which has none, the empty one.

    Raises:
        OSError: a folder or record cannot be read.
    """
    spool, study = study_folder.parent, study_folder.name
    if not any((spool / name / study).is_dir() for name in (CONFLICTS, SUPERSEDED, WITHDRAWN)):
        return InputState()
    superseded: dict[Path, tuple[Version, ...]] = {}
    changes = []
    for version in versions(spool / SUPERSEDED, study):
        in_use = study_folder / version.series_instance_uid / f"{version.sop_instance_uid}.dcm"
        if _is_in_use(version, in_use):
            continue
        superseded[in_use] = (*superseded.get(in_use, ()), version)
        changes.append(f"superseded {version.path.relative_to(spool / SUPERSEDED)}")
    for in_use in superseded:
        with suppress(FileNotFoundError):  # the time tells a version that came back from the one that it replaced
            status = in_use.stat()
            changes.append(f"in use {in_use.relative_to(study_folder)} {status.st_mtime_ns} {status.st_size}")
    withdrawn = withdrawals_of(spool, study)
    changes += [f"withdrawn {sop} {each.reason} {each.source}" for sop, each in sorted(withdrawn.items())]
    conflicts = (f"conflict {each.path.relative_to(spool / CONFLICTS)}" for each in versions(spool / CONFLICTS, study))
    return InputState(superseded, withdrawn, tuple(conflicts), tuple(changes))


def _is_in_use(version: Version, in_use: Path) -> bool:
    """True if a version is still in use: what was to replace it was cut short after the version got its name aside.

    Nothing has changed then; the instance is replaced once the correction is sent again.
    """
    with suppress(FileNotFoundError):
        return version.path.samefile(in_use)
    return False


def without_withdrawn(study: Study, state: InputState) -> Study:
    """``study`` without the instances that are withdrawn.

    Raises:
        InstanceRefused: nothing else is left.
    """
    if not state.withdrawn:
        return study
    series = (_without(each, state.withdrawn) for each in study.series)
    left = tuple(each for each in series if each.instances)
    if not left and study.series:
        raise InstanceRefused("no instance of the study is left")
    return replace(study, series=left)


def _without(series: Series, withdrawn: Mapping[str, Withdrawal]) -> Series:
    kept = tuple(each for each in series.instances if each.sop_instance_uid not in withdrawn)
    return replace(series, instances=kept)


@dataclass(frozen=True, slots=True)
class ChosenVersions:
    """Which versions of the chosen instances are in use.

    Attributes:
        corrected: one line for each chosen instance that is not in its first version: its UID and the digest of the
            data set in use.
        images: one line for each other image that was in use under its UID before.
    """

    corrected: tuple[str, ...]
    images: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The digest of all lines; empty: every chosen instance is in its first version."""
        return uids.digest((*self.corrected, "images", *self.images))[:32] if self.corrected else ""


def chosen_versions(selection: Selection, state: InputState) -> ChosenVersions:
    """The versions of the instances chosen by ``selection``, in one order whatever the files' names.

    Raises:
        OSError: a file cannot be read.
    """
    corrected, images = set(), set()
    for instance in chosen_instances(selection):
        for version in state.superseded.get(instance.path, ()):
            corrected.add(f"{instance.sop_instance_uid} {content_digest(instance.path)}")
            if version.is_other_image:
                images.add(f"{instance.sop_instance_uid} {version.digest}")
    return ChosenVersions(tuple(sorted(corrected)), tuple(sorted(images)))


def chosen_instances(selection: Selection) -> Iterable[Instance]:
    """The instances of the chosen series."""
    return (instance for series in selection.chosen.values() for instance in series.instances)
