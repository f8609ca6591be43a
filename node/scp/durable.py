"""Names of files in the spool that survive a power cut once they are given."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from node.scp.disk import sync_folder

_MOST_FOLDERS_KNOWN = 4096


class DurableNames:
    """Links and replaces files below ``root``, durably. Safe for many threads and processes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._durable_folders: set[Path] = set()

    def link(self, file: Path, final: Path) -> bool:
        """Link ``file`` to ``final``; False if that exists. Unlike a rename, a link never replaces a file.

        Raises:
            OSError: the disk refuses.
        """
        self._make_durable_folder(final.parent)
        try:
            os.link(file, final)
        except FileExistsError:
            is_new = False
        else:
            is_new = True
        # also if the file existed: its writer may not have synced the folder yet
        sync_folder(final.parent)
        return is_new

    def replace(self, file: Path, final: Path) -> None:
        """Give ``file`` the name ``final``, whose earlier content is gone; never neither, whenever the process ends.

        The folder of ``final`` is not made anew: if another process has moved it away, this fails.

        Raises:
            OSError: the disk refuses.
        """
        file.replace(final)
        sync_folder(final.parent)
        sync_folder(file.parent)

    def _make_durable_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._durable_folders.discard(folder)
            inner = itertools.takewhile(lambda each: each != self._root, (folder, *folder.parents))
            for each in reversed(list(inner)):
                each.mkdir(exist_ok=True)
        if folder not in self._durable_folders:
            for parent in folder.parents:
                sync_folder(parent)
                if parent == self._root:
                    break
            if len(self._durable_folders) >= _MOST_FOLDERS_KNOWN:  # a node runs for years
                self._durable_folders.clear()
            self._durable_folders.add(folder)
