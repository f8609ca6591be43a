"""Who else may read or change the node's files: its folder, its config, keys, passwords and tokens."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from node.cli.account import account_name, group_name
from node.config import DEFAULT_FILE, Config


def weak_files(config: Config, config_file: Path | None) -> Iterator[str]:
    """One line for each file or folder that is open to others, with the command that mends it.

    The lines name keys and paths, never a value of the config.
    """
    yield from _folder(config.folder)
    file = config_file or DEFAULT_FILE
    if file.exists():
        yield from _config_file(file, _keys_with_secrets(config))
    for key, secret in _secret_files(config):
        yield from _secret(key, secret)


def _folder(folder: Path) -> Iterator[str]:
    if not folder.is_dir():  # missing, or no folder at all: other parts of the check say so
        return
    facts = folder.stat()
    if facts.st_uid != os.geteuid():
        owner, here = account_name(facts.st_uid), account_name(os.geteuid())
        yield f"node.folder: {folder} belongs to {owner}, and this is {here}; run glionode as {owner}"
    if facts.st_mode & 0o077:
        yield f"node.folder: {folder} is open to other accounts ({_mode(facts)}); run: chmod 700 {folder}"
    try:
        strangers = [each for each in sorted(folder.iterdir()) if each.lstat().st_uid != facts.st_uid]
    except PermissionError:
        yield f"node.folder: {folder} cannot be read by {account_name(os.geteuid())}"
        return
    if strangers:
        other, owner = account_name(strangers[0].lstat().st_uid), f"{facts.st_uid}:{facts.st_gid}"
        yield f"node.folder: {strangers[0]} belongs to {other}; run: chown -R {owner} {folder}"


def _keys_with_secrets(config: Config) -> list[str]:
    """The keys whose values hold a password, or a URL that is one."""
    found = []
    if _has_password(config.engine.database):
        found.append("engine.database")
    if config.notify.urls:
        found.append("notify.urls")
    if any(_has_password(section.url or "") for section in config.destination):
        found.append("destination.url")
    return found


def _has_password(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.password) or "password" in parse_qs(parts.query)


def _secret_files(config: Config) -> Iterator[tuple[str, Path]]:
    if config.tls.key_file:
        yield "tls.key_file", config.tls.key_file
    for section in config.destination:
        for key in ("password_file", "token_file"):
            if file := getattr(section, key):
                yield f"destination {section.name}: {key}", file


def _config_file(file: Path, keys: list[str]) -> Iterator[str]:
    facts = file.stat()
    if keys and facts.st_mode & stat.S_IROTH:
        named = ", ".join(keys)
        yield f"{file}: every account may read it ({_mode(facts)}), and {named} may hold a password; {_cure(file)}"
    elif facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield f"{file}: other accounts may change it ({_mode(facts)}); run: chmod go-w {file}"


def _secret(key: str, file: Path) -> Iterator[str]:
    try:
        facts, can_read = file.stat(), os.access(file, os.R_OK)
    except (FileNotFoundError, NotADirectoryError):
        return  # whoever needs the file says so
    except PermissionError:  # a folder above it is closed
        can_read = False
    if not can_read:
        yield f"{key}: {file} cannot be read by {account_name(os.geteuid())}"
    elif facts.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        yield f"{key}: {file} is open to other accounts ({_mode(facts)}); {_cure(file)}"


def _cure(file: Path) -> str:
    """Group read stays: a config that root owns is read by the service's group."""
    return f"run: chmod o-rwx,g-w {file} (the group {group_name(file.stat().st_gid)} may still read it)"


def _mode(facts: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(facts.st_mode):04o}"
