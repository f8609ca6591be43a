"""PostgreSQL that is restarted and failed over: a primary, and a standby that holds every commit before it is answered.

Each change of the primary is seen by the node as one broken connection: a wire leads to whichever server is primary.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from faults import free_port, wait_until
from postgres import BINARIES
from wires import Wire

_SECONDS = 120.0
_QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
_OPTIONS = ("listen_addresses=127.0.0.1", "fsync=off", "max_connections=200")


class _Server:
    """One server in a folder of its own, which may be killed and started again."""

    def __init__(self, parent: Path, name: str, user: list[str]) -> None:
        self.folder, self.port, self._parent, self._user = parent / name, free_port(), parent, user
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, program: str, *arguments: object) -> None:
        """One of PostgreSQL's programs."""
        command = [*self._user, BINARIES / program, *map(str, arguments)]
        subprocess.run(command, check=True, cwd=self._parent, **_QUIET)

    def start(self) -> None:
        """Start, and wait until it answers."""
        given = (*_OPTIONS, f"port={self.port}", f"unix_socket_directories={self._parent}")
        options = [part for each in given for part in ("-c", each)]
        command = [*self._user, BINARIES / "postgres", "-D", self.folder, *options]
        self.process = subprocess.Popen(command, cwd=self._parent, **_QUIET)
        wait_until(lambda: self.asked("SELECT 1") == 1, _SECONDS)

    def end(self, number: signal.Signals) -> None:
        """SIGINT: ends in good order; SIGQUIT: at once, as in a crash."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(_SECONDS)

    def asked(self, query: str) -> object:
        """The first value of the answer; None if the server does not answer."""
        with suppress(psycopg.Error):
            url = f"postgresql://glionode@127.0.0.1:{self.port}/postgres"
            with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
                row = connection.execute(query.encode()).fetchone()
                return row[0] if row else None
        return None

    def told(self, statement: str) -> None:
        """A statement without a result."""
        url = f"postgresql://glionode@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())


class DatabasePair:
    """The primary, and with ``has_standby`` a standby; a context manager. `wires` lead to the primary."""

    def __init__(self, has_standby: bool) -> None:
        self._user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        self._has_standby, self._count = has_standby, 0
        self.wires: list[Wire] = []

    @property
    def port(self) -> int:
        """The primary's."""
        return self._primary.port

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="glionode-postgres-"))  # not pytest's: postgres may not enter it
        if self._user:
            shutil.chown(self._folder, "postgres", "postgres")
        self._primary, self._standby = self._server(), None
        self._primary.run("initdb", "-D", self._primary.folder, "-U", "glionode", "-A", "trust", "--no-sync")
        self._primary.start()
        if self._has_standby:
            self._follow()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (self._standby, self._primary):
            if server is not None:
                server.end(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    def _server(self) -> _Server:
        self._count += 1
        return _Server(self._folder, f"data{self._count}", self._user)

    def _follow(self) -> None:
        """Start a standby; from now on the primary answers no commit that the standby does not hold."""
        standby, primary = self._server(), self._primary
        source = ("-h", "127.0.0.1", "-p", primary.port, "-U", "glionode", "-c", "fast", "-X", "stream")
        standby.run("pg_basebackup", "-D", standby.folder, *source, "-R", "--no-sync")
        standby.start()
        primary.told("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.told("SELECT pg_reload_conf()")
        wait_until(lambda: primary.asked("SELECT sync_state FROM pg_stat_replication") == "sync", _SECONDS)
        self._standby = standby

    def restart(self, is_crash: bool) -> None:
        """End the primary and start it again."""
        self._primary.end(signal.SIGQUIT if is_crash else signal.SIGINT)
        self._primary.start()

    def fail_over(self) -> None:
        """Kill the primary; the standby becomes primary, and gets a standby of its own."""
        old, new = self._primary, self._standby
        assert new is not None
        old.end(signal.SIGQUIT)
        new.run("pg_ctl", "promote", "-D", new.folder, "-w")
        self._primary, self._standby = new, None
        for wire in self.wires:
            wire.target_port = new.port
        shutil.rmtree(old.folder)
        self._follow()
