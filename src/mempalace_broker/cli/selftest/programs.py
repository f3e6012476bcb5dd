"""Checks of the programs: started with little, under other spellings, in numbers, and killed."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
import unicodedata
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import BrokerError
from ...system import kernel
from ...system.embedding_model import ModelError
from ...system.find_engine import SETTING
from ...system.paths import home_of
from ...system.private import VARIABLE
from ...system.unix_socket import connect
from .check import Check, Outcome, Skip, Verdict, find_users_engine
from .facts import started_by

if TYPE_CHECKING:
    from .check import Bench

SHORT_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"  # what sshd and the Dock give on a Mac
SESSIONS = 300
_ENOUGH_SESSIONS = 100
_PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
_SPARE = 50  # descriptors besides those of the sessions
_SLOW_START_S = 10.0


# -- a short PATH


class Started(NamedTuple):
    """Seconds to a session's first answer through a broker that was started with a short PATH; the engines that are
    found with it and with the user's own environment, "" for none; whether a variable named the latter.
    """

    seconds: float
    engine: str
    users_engine: str
    named: bool = False


def _measure_short_path(bench: Bench) -> Started:
    """Start mp-shim with hardly any environment; it starts the broker."""
    from ..demo.agent import Agent
    from ..demo.home import find_shim

    env = {name: value for name, value in bench.env.items() if name in ("HOME", VARIABLE, "MEMPALACE_BROKER_IDLE_S")}
    env["PATH"] = SHORT_PATH
    agent = Agent("short-path", find_shim(), env, bench.root)
    try:
        agent.initialize()
    finally:
        agent.kill()
        with bench.broker(env=env):
            pass  # and stop it
    engine, _ = find_users_engine({"HOME": home_of(bench.users_env), "PATH": SHORT_PATH})
    short, users = (found.interpreter if found else "" for found in (engine, bench.engine))
    return Started(agent.start_s, short, users, named=bool(bench.users_env.get(SETTING)))


def _judge_short_path(found: Started) -> Outcome:
    """Whoever starts the broker first decides where it looks for the engine."""
    figure = f"first answer {found.seconds:.2f} s; engine {found.engine or 'not found'}"
    if found.engine != found.users_engine:
        why = f"your own environment leads to {found.users_engine}: name it in config.toml ([broker] engine)"
        return Outcome(Verdict.DIFFERS if found.engine or found.named else Verdict.FAILED, figure, why)
    if found.seconds > _SLOW_START_S:
        return Outcome(Verdict.DIFFERS, figure, "that is slow")
    return Outcome(Verdict.OK, figure)


# -- other spellings of the palace's path


def _measure_spelling(bench: Bench) -> dict[str, str]:
    """ "case" and "NFD" -> whether that spelling is another folder, or which broker it leads to."""
    palace = bench.root / "Spelling-\u00e9"
    variants = {"case": palace.name.swapcase(), "NFD": unicodedata.normalize("NFD", palace.name)}
    found = {}
    with bench.broker(palace) as first:
        for kind, name in variants.items():
            other = palace.with_name(name)
            if not (other.exists() and other.samefile(palace)):
                found[kind] = "another folder"
                continue
            try:
                same = bench.ensure(other)["pid"] == first["pid"]
                found[kind] = "same broker" if same else "another broker"
            except BrokerError as exc:
                found[kind] = f"refused: {exc.message}"
    return found


def _judge_spelling(found: dict[str, str]) -> Outcome:
    """One folder has one broker."""
    figure = "; ".join(f"{kind}: {what.partition(':')[0]}" for kind, what in found.items())
    if "another broker" in found.values():
        return Outcome(Verdict.FAILED, figure, "two brokers for one folder")
    refused = [what for what in found.values() if what.startswith("refused")]
    return Outcome(Verdict.DIFFERS, figure, refused[0]) if refused else Outcome(Verdict.OK, figure)


# -- many sessions, and a broker that is killed


class Sessions(NamedTuple):
    """How many were to be open at once, how many were answered, and in how many seconds."""

    wanted: int
    answered: int
    seconds: float


def _measure_sessions(bench: Bench, wanted: int = SESSIONS) -> Sessions:
    """Open that many connections, each with one request, and keep all open until the last is answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = max(0, min(wanted, hard - _SPARE))
    with bench.broker() as told, ExitStack() as stack:  # a broker that starts under our limit, before we raise it
        if soft != resource.RLIM_INFINITY and soft < wanted + _SPARE:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + _SPARE, hard))
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        begun = time.monotonic()
        socks = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(wanted)]
        for sock in socks:
            sock.settimeout(5.0)
            connect(sock, told["endpoint"].removeprefix("unix:"))
            sock.sendall(_PING)
        answered = sum(b'"result"' in sock.recv(4096) for sock in socks)
        return Sessions(wanted, answered, time.monotonic() - begun)


def _judge_sessions(found: Sessions) -> Outcome:
    """Three hundred are more than anybody has."""
    figure = f"{found.answered} of {found.wanted} at once in {found.seconds:.2f} s"
    if found.answered < found.wanted:
        return Outcome(Verdict.FAILED, figure, "the broker turned some away")
    if found.wanted < SESSIONS:
        few = found.wanted < _ENOUGH_SESSIONS
        why = "the hard limit of descriptors allows no more"
        return Outcome(Verdict.FAILED if few else Verdict.DIFFERS, figure, why)
    return Outcome(Verdict.OK, figure)


def _measure_kill(bench: Bench) -> tuple[bool, float]:
    """SIGKILL the broker: whether another process serves then, and after how many seconds."""
    with bench.broker() as first:
        os.kill(first["pid"], signal.SIGKILL)
        begun = time.monotonic()
        with bench.broker() as second:
            return second["pid"] != first["pid"], time.monotonic() - begun


def _judge_kill(found: tuple[bool, float]) -> Outcome:
    """The next client starts the next broker."""
    figure = f"the next one serves after {found[1]:.2f} s"
    if not found[0]:
        return Outcome(Verdict.FAILED, figure, "it has the pid of the one that was killed")
    if found[1] > _SLOW_START_S:
        return Outcome(Verdict.DIFFERS, figure, "that is slow")
    return Outcome(Verdict.OK, figure)


# -- what macOS lets us see


def _measure_documents(bench: Bench) -> tuple[str, str]:
    """(who started us, what listing ~/Documents said). Only the listing is tried; no name is kept."""
    if not kernel.MACOS:
        raise Skip("only macOS guards ~/Documents")
    try:
        os.listdir(Path(home_of(bench.users_env)) / "Documents")
    except OSError as exc:
        return started_by(bench.users_env), exc.strerror or str(exc)
    return started_by(bench.users_env), ""


def _judge_documents(found: tuple[str, str]) -> Outcome:
    """A broker may read what its starter may: `mine ~/Documents` works or not by who came first."""
    figure = f"started by {found[0]}: {found[1] or 'allowed'}"
    why = "a broker that is started so can't mine there; run `mempalace-broker ensure` in Terminal"
    return Outcome(Verdict.DIFFERS, figure, why) if found[1] else Outcome(Verdict.OK, figure)


# -- the demo


def _measure_demo(bench: Bench) -> dict[str, Any]:
    """Three agents, a killed engine: the demo's report."""
    from ..demo import perform
    from ..demo.show import Show

    if bench.engine is None:
        raise Skip(bench.no_engine)
    root = bench.root / "demo"
    root.mkdir()
    try:
        return perform(root, None, Show(quiet=True))
    except ModelError as exc:
        raise Skip(str(exc)) from exc


def _judge_demo(report: dict[str, Any]) -> Outcome:
    """Every check of the demo is one of ours."""
    bad = [f"{check['name']}: {check['detail']}" for check in report["checks"] if not check["ok"]]
    facts = report["facts"]
    figure = (
        f"{len(report['checks']) - len(bad)} of {len(report['checks'])} checks in {report['seconds']:.0f} s, cold "
        f"start {facts.get('cold_start_s', 0):.2f} s, pause after kill -9 {facts.get('pause_after_kill_s', 0):.2f} s"
    )
    return Outcome(Verdict.OK if report["ok"] else Verdict.FAILED, figure, "; ".join(bad))


CHECKS: tuple[Check, ...] = (
    Check("short PATH", _measure_short_path, _judge_short_path, 40.0),
    Check("spelling", _measure_spelling, _judge_spelling, 30.0),
    Check("sessions", _measure_sessions, _judge_sessions, 30.0),
    Check("killed broker", _measure_kill, _judge_kill, 30.0),
    Check("documents", _measure_documents, _judge_documents),
    Check("demo", _measure_demo, _judge_demo, 100.0),
)
