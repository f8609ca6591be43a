"""A PostgreSQL server of the test's own: in a folder, on a free port of loopback, stopped at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults import free_port, wait_until

_NEWEST_FIRST = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
BINARIES = _NEWEST_FIRST[0] if _NEWEST_FIRST else Path("postgresql-is-missing-see-.ci/packages")


@contextmanager
def running_postgres() -> Iterator[str]:
    """A server with an empty database; yields its URL. It refuses to run as root, so root becomes ``postgres``."""
    assert _NEWEST_FIRST, "PostgreSQL is not installed: see .ci/packages"
    binaries, port = _NEWEST_FIRST[0], free_port()
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="glionode-postgres-"))  # not pytest's: postgres may not enter that one
    if user:
        shutil.chown(folder, "postgres", "postgres")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    data = folder / "data"
    create = [binaries / "initdb", "-D", data, "-U", "glionode", "-A", "trust", "--no-sync"]
    subprocess.run([*user, *create], check=True, **quiet)
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", f"unix_socket_directories={folder}"]
    server = subprocess.Popen([*user, binaries / "postgres", "-D", data, *options, "-c", "fsync=off"], **quiet)
    try:
        ready = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
        wait_until(lambda: subprocess.run(ready, check=False, **quiet).returncode == 0, 120.0)
        yield f"postgresql://glionode@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(120)
        shutil.rmtree(folder)
