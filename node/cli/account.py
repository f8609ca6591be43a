"""As whom a command runs: what root starts goes on as the owner of the node's folder.

Root's files in that folder would be closed to the service, which then could not start, or not process a study.
"""

from __future__ import annotations

import grp
import os
import pwd
import sys
from pathlib import Path

import node
from node.errors import ConfigError

UMASK = 0o077
"""Received instances, results, database and log are for the node's own account alone, whoever starts a command."""


def act_as_owner(folder: Path) -> None:
    """If root runs this process and another account owns ``folder``, go on as that account, for good.

    Of a folder that does not exist yet, the owner is that of the nearest folder above it.

    Raises:
        ConfigError: the process may not change its account, or that account cannot read the program's files; the text
            says what to do instead.
    """
    owner = owner_of(folder)
    if os.geteuid() != 0 or owner == 0:
        return
    name, group, home = _account(owner, folder)
    try:
        os.setgroups(os.getgrouplist(name, group) if name else [group])
        os.setgid(group)
        os.setuid(owner)
    except OSError as error:
        text = f"node.folder: {folder} belongs to {account_name(owner)}, and root may not go on as this account here"
        raise ConfigError(f"{text} ({error.strerror}); run: {command_as(owner)}") from None
    os.environ |= {"HOME": str(home if home.is_dir() else folder), "USER": name, "LOGNAME": name}
    for program in (Path(node.__file__).parent, Path(os.__file__), Path(sys.executable).resolve()):
        if not os.access(program, os.R_OK):
            raise ConfigError(
                f"node.folder: {folder} belongs to {account_name(owner)}, who cannot read the program's file {program};"
                " install Python and glionode where this account can read them"
            )


def owner_of(folder: Path) -> int:
    """The user id that owns ``folder``, or the nearest existing folder above it."""
    while not folder.exists():
        folder = folder.parent
    return folder.stat().st_uid


def account_name(user: int) -> str:
    """The account's name, or "user 4711" if it has none."""
    return _account(user, Path())[0] or f"user {user}"


def command_as(user: int) -> str:
    """The command that root types to run glionode as ``user``."""
    name = _account(user, Path())[0]
    return f"runuser -u {name} -- glionode ..." if name else f"setpriv --reuid={user} --clear-groups -- glionode ..."


def group_name(group: int) -> str:
    """The group's name, or its number."""
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)


def _account(user: int, folder: Path) -> tuple[str, int, Path]:
    """Name, group and home of an account; without an entry in the user database: no name, and what ``folder`` has."""
    try:
        entry = pwd.getpwuid(user)
    except KeyError:
        return "", folder.stat().st_gid if folder.exists() else user, folder
    return entry.pw_name, entry.pw_gid, Path(entry.pw_dir)
