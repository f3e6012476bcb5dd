"""`stop` and `restart`: stop the broker and wait until it is gone."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import click

from ..errors import EXIT_OK, BrokerUnavailable, StateRootError, StopFailed
from ..protocol.hello import RESTART
from ..settings import BrokerSettings
from ..system import kernel
from .context_options import palace_options
from .outcome import say
from .service import manager_for

if TYPE_CHECKING:
    from ..system.paths import Context
    from ..system.unix_socket import PeerProcess

ANSWER_S = 5.0
LEAVE_S = 25.0  # beyond drain_s: the engine gets 5 s for each of EOF, SIGTERM and SIGKILL
TERM_S = 5.0
KILL_S = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1


@click.command("stop", short_help="Stop the broker and its engine.")
@click.option("--now", is_flag=True, help="Don't wait for running calls; kill a broker that hangs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of words.")
@palace_options
def command_stop(context: Context, now: bool, as_json: bool) -> int:
    """Stop the broker and its engine, and wait until both are gone.

    Running calls finish first (at most drain_s seconds, see docs/settings.md). The agents' sessions stay:
    the next call of one of them starts a new broker. To keep it down, stop the agents.

    \b
    Example:
      mempalace-broker stop
      mempalace-broker stop --now      it hangs, or you are in a hurry

    \b
    Exit codes: 0 it is gone, or did not run; 75 it does not answer (then use --now), or
    it survives SIGKILL.
    """
    gone = stop(context, now=now, why="mempalace-broker stop")
    if as_json:
        click.echo(json.dumps(gone))
    elif gone["was_running"]:
        say(f"stopped: the broker of {context.identity.path} (pid {gone['pid']}) is gone.")
        if os.path.exists(manager_for(context).file):
            click.echo("Its service starts the next one in a moment; to end that: mempalace-broker service uninstall")
        if gone.get("command"):
            click.echo(f"{gone['command']}, still has the palace for itself.")
    else:
        say(f"no broker runs for {context.identity.path}.")
    return EXIT_OK


@click.command("restart", short_help="Restart the broker; sessions continue.")
@click.option("--now", is_flag=True, help="Don't wait for running calls; kill a broker that hangs.")
@click.option("--json", "_json", is_flag=True, expose_value=False, help="Accepted; the output is always JSON.")
@palace_options
def command_restart(context: Context, now: bool) -> int:
    """Stop the broker if one runs, and start a new one; the agents' sessions continue.

    For a new version of mempalace-broker or mempalace, and for changed settings. The agents' mp-shim sends waiting
    calls again; nothing is lost or done twice. Prints what `ensure` prints.

    \b
    Example:
      pip install -U mempalace-broker && mempalace-broker restart

    \b
    Exit codes: as `stop` and `ensure`. Where no new one could start, the old one stays.
    """
    from .serve import ensure, tcp_endpoint

    _check_start(context)
    stop(context, now=now, why="mempalace-broker restart", method=RESTART)
    click.echo(json.dumps({**ensure(context), "tcp": tcp_endpoint(context)}))
    return EXIT_OK


def _check_start(context: Context) -> None:
    """Make sure that the next broker could start here, before the one that runs is stopped.

    Raises:
        StateRootError: it could not write where it has to. UsageError: its settings are wrong.
    """
    from ..settings_files import PrivateSettings
    from ..system.lock import is_held

    if not is_held(context.files.owner_lock):
        return  # nothing would be lost, and the start says what is wrong
    PrivateSettings.read(context.env).broker(context.env, context.identity.path)
    for folder in (context.files.root, context.files.palace):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StateRootError(
                f"{folder} is not writable here: the broker that runs would be stopped, and no other one could start.",
                hint="run this where you can write to it, outside a sandbox that shows it read-only",
            )


def stop(context: Context, *, now: bool, why: str, method: str = "broker/stop") -> dict[str, Any]:
    """Tell the broker to leave and wait until it is gone: {"was_running", "pid"}, and "command" where a command of
    `exclusive` is at work, which goes on.

    Raises:
        StopFailed: it does not answer, does not leave, or can't be killed; names the process.
    """
    from ..route.ask import ask_broker, is_remote
    from ..system.clock import Deadline
    from ..system.command_note import command_at_work
    from ..system.lock import is_held

    broker, engine = LockHolder(context.files.owner_lock), LockHolder(context.files.engine_lock)
    command = command_at_work(context.files)
    holders = [broker] if command else [broker, engine]
    inside = _broker_in_container(context)
    if inside is not None:
        return _stop_in_container(context, inside, holders)
    patience = LEAVE_S + (0 if now else _drain_s(context))
    params = {"mode": "now" if now else "drain", "reason": why}
    said = ask_broker(context, method, params, Deadline.after(context.clock, ANSWER_S))
    if said.answer is not None:
        pid = int(said.answer.get("pid") or 0)
        if not _gone(context, holders, patience, let_go=method == RESTART):
            if not now:
                raise StopFailed(
                    f"the broker {_named(pid)} said that it would stop, but did not.",
                    hint="mempalace-broker stop --now",
                )
            _kill(context, holders)
        return {"was_running": True, "pid": pid, **({"command": command} if command else {})}
    if said.unreachable or is_remote(context.env):  # the locks here are not that broker's
        raise BrokerUnavailable(f"nothing is known of the broker: {said.why}.", hint="run this where the broker runs")
    if not is_held(context.files.owner_lock) and not said.accepted:
        return {"was_running": False, "pid": None}
    if not now:
        raise StopFailed(
            f"a broker owns {context.identity.path} ({_named(broker.pid)}) and does not answer: {said.why}.",
            hint="mempalace-broker stop --now, which kills it",
        )
    _kill(context, holders)
    return {"was_running": True, "pid": broker.pid or None}


def _broker_in_container(context: Context) -> PeerProcess | None:
    """The broker's process, where it runs in a container of this machine: we are no more than a guest to it."""
    from ..route.ask import is_remote, socket_paths
    from ..route.dial import dial_any
    from ..route.discover import fixed_endpoint
    from ..system.kernel import LINUX
    from ..system.unix_socket import peer_process

    if not LINUX or is_remote(context.env):
        return None
    sock = dial_any(socket_paths(context), named=fixed_endpoint(context.env) is not None).sock
    if sock is None:
        return None
    try:
        found = peer_process(sock)
    finally:
        sock.close()
    return found if found.inside else None


def _stop_in_container(context: Context, inside: PeerProcess, holders: list[LockHolder]) -> dict[str, Any]:
    from ..route.handover import tell_to_leave

    tell_to_leave(inside, context.identity.path)
    if not _gone(context, holders, LEAVE_S + BrokerSettings().drain_s):
        raise StopFailed(
            f"the broker of a container ({_named(inside.pid)}) was told to leave, but did not.",
            hint=f"kill -9 {inside.pid}, or stop the container",
        )
    return {"was_running": True, "pid": inside.pid}


class LockHolder:
    """The process that held a lock file when this object was made.

    An agent may start the next broker before we look again: that is another process, and the one that we stopped is
    gone all the same.

    Attributes:
        path: the lock file. who: the process that the note in it names, None if it names none.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        from ..system.lock_notes import read_holder

        self.who = read_holder(path)

    @property
    def pid(self) -> int:
        """The holder's, 0 if not known."""
        return self.who.pid if self.who is not None else 0

    @property
    def is_alive(self) -> bool:
        """Whether that very process is alive, in our pid namespace."""
        from ..system.process_ids import ALIVE, process_state

        return self.who is not None and process_state(self.who) == ALIVE

    @property
    def has_let_go(self) -> bool:
        """Whether the lock is free, or another's."""
        from ..system.lock import is_held
        from ..system.lock_notes import read_holder

        return read_holder(self.path) != self.who or is_held(self.path) is False

    @property
    def is_present(self) -> bool:
        """Whether it is alive, or, where its pid has no meaning here, still holds its lock."""
        from ..system.lock import is_held
        from ..system.lock_notes import read_holder
        from ..system.process_ids import DEAD, ZOMBIE, process_state

        if self.is_alive:
            return True
        if self.who is not None and (process_state(self.who) in (DEAD, ZOMBIE) or read_holder(self.path) != self.who):
            return False
        return bool(is_held(self.path))


def _drain_s(context: Context) -> float:
    """How long the running broker lets calls finish: it knows, even if config.toml has changed since."""
    from ..route.ask import ask_broker
    from ..system.clock import Deadline

    said = ask_broker(context, "broker/status", {}, Deadline.after(context.clock, ANSWER_S))
    setting = (said.answer or {}).get("settings", {}).get("drain_s", {})
    value = setting.get("value")
    return float(value) if isinstance(value, int | float) else 0.0


def _gone(context: Context, holders: list[LockHolder], seconds: float, *, let_go: bool = False) -> bool:
    """Wait until all of them are gone; neither an end nor a lock sends an event, so this polls.

    Args:
        let_go: one that has given up its lock counts as gone: it stays to hand over to the next one.
    """
    from ..system.clock import Deadline

    deadline = Deadline.after(context.clock, seconds)
    pause = _FIRST_PAUSE
    while any(holder.is_present and not (let_go and holder.has_let_go) for holder in holders):
        if deadline.expired:
            return False
        context.clock.sleep(min(pause, deadline.remaining()))
        pause = min(pause * 2, _LONGEST_PAUSE)
    return True


def _kill(context: Context, holders: list[LockHolder]) -> None:
    """SIGTERM, then SIGKILL, to the very process that holds the lock, the first of `holders`, and to no other; its
    engine ends by itself.
    """
    from ..system.process_command import is_ours

    broker = holders[0]
    if not broker.is_alive or not is_ours(broker.pid):
        raise StopFailed(
            f"a process holds {broker.path}, but the note in it names no broker of yours that runs here.",
            hint=f"see `mempalace-broker doctor`, or `lsof {broker.path}`",
        )
    for number, seconds in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
        try:
            os.kill(broker.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError as exc:
            raise StopFailed(f"not allowed to end {_named(broker.pid)}.", hint=f"sudo kill -9 {broker.pid}") from exc
        if _gone(context, holders, seconds):
            return
    if broker.is_alive:
        look = f"sample {broker.pid}" if kernel.MACOS else f"cat /proc/{broker.pid}/stack"
        raise StopFailed(
            f"{_named(broker.pid)} survives SIGKILL: it hangs in the kernel, on a disk or a mount.",
            hint=f"see what it waits for (`{look}`); a reboot ends it for certain",
        )
    raise StopFailed(
        f"the broker is dead, but its engine ({_named(holders[-1].pid)}) still has the palace and is finishing "
        "its work.",
        hint="wait, or see `mempalace-broker doctor`",
    )


def _named(pid: int) -> str:
    from ..system.process_command import process_command

    return f"pid {pid}, {process_command(pid) or 'unknown command'}" if pid else "an unknown process"
