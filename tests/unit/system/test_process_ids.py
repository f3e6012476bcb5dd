"""A pid is alive, dead or unknown; "dead" is said only of what is proved dead."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mempalace_broker.system import kernel, process_ids
from mempalace_broker.system.process_ids import (
    ALIVE,
    DEAD,
    UNKNOWN,
    ZOMBIE,
    ProcessId,
    process_of,
    process_state,
    this_process,
)
from tests.proctools import eventually


def test_we_are_alive() -> None:
    me = this_process()
    assert me.pid == os.getpid()
    assert me.start
    assert process_state(me) == ALIVE
    assert me == process_of(os.getpid())
    assert hash(me) == hash(this_process())


def test_a_child_lives_is_a_zombie_and_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        who = process_of(child.pid)
        assert process_state(who) == ALIVE
        child.kill()
        eventually(lambda: process_state(who) == ZOMBIE, what="a zombie")
        child.wait()
        assert process_state(who) == DEAD


def test_a_reused_pid_is_somebody_else() -> None:
    me = this_process()
    assert process_state(ProcessId(me.pid, str(int(me.start) - 1), me.boot, me.pidns)) == DEAD


@pytest.mark.parametrize("pid", [0, -1, -(2**40), 2**31, 10**30])
def test_impossible_pids_are_dead(pid: int) -> None:
    me = this_process()
    assert process_state(ProcessId(pid, me.start, me.boot, me.pidns)) == DEAD


def test_other_boots_and_namespaces_are_unknown() -> None:
    me = this_process()
    assert process_state(ProcessId(me.pid, me.start, "another-boot", me.pidns)) == UNKNOWN
    assert process_state(ProcessId(me.pid, me.start, me.boot, "pid:[1]")) == UNKNOWN
    assert process_state(ProcessId(2**31 - 1, "1", me.boot, "pid:[1]")) == UNKNOWN


def test_without_a_start_token_a_living_number_proves_nothing() -> None:
    me = this_process()
    assert process_state(ProcessId(me.pid, "", me.boot, me.pidns)) == UNKNOWN
    assert process_state(ProcessId(2**31 - 1, "", me.boot, me.pidns)) == DEAD


@pytest.mark.parametrize("command", ["a b", "x) R 1 1 (", ")))"])
def test_a_command_name_with_parentheses_does_not_confuse(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    fields = " ".join(str(n) for n in range(4, 53))
    monkeypatch.setattr(kernel, "read_small", lambda path: f"77 ({command}) S {fields}")
    assert process_ids._look(77) == (ALIVE, "22")


def test_half_a_stat_line_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "read_small", lambda path: "77 (x) S 1 2")
    assert process_ids._look(77) == (UNKNOWN, "")


def test_a_hidden_process_is_unknown_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hidepid /proc shows nothing of others; the number is in use all the same."""
    monkeypatch.setattr(kernel, "read_small", lambda path: "")
    assert process_ids._look(os.getpid()) == (UNKNOWN, "")


def test_macos_goes_by_ps(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"sysctl": "B00T", "ps": "Ss   Sun Nov 22 10:00:00 2026"}
    monkeypatch.setattr(kernel, "MACOS", True)
    monkeypatch.setattr(kernel, "_ANSWERS", {})
    monkeypatch.setattr(kernel, "run", lambda *argv: answers[argv[0]])
    who = process_of(77)
    assert (who.boot, who.start) == ("B00T", "Sun Nov 22 10:00:00 2026")
    assert process_state(who) == ALIVE
    answers["ps"] = "Z    Sun Nov 22 10:00:00 2026"
    assert process_state(who) == ZOMBIE
    answers["ps"] = "S    Sun Nov 22 11:11:11 2026"
    assert process_state(who) == DEAD


def test_a_command_tells_times_in_utc() -> None:
    """A start token of `ps` is a time of day: its user may travel."""
    assert kernel.run("date", "+%Z") == "UTC"


def test_asking_a_command_that_fails_or_is_not_there() -> None:
    assert kernel.run("false") == ""
    assert kernel.run("no-such-command-here") == ""
    assert kernel.run("echo", "x y") == "x y"
