"""Calls of guests that name files wait until the app has looked at the files; nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mempalace_broker import errors
from mempalace_broker.broker.machine import effects as fx
from mempalace_broker.broker.machine.session import Origin
from mempalace_broker.protocol.framing import LONG
from tests.unit.broker.machine.dialogue import KG_QUERY, Talk, call, cancel, request

MINE = "mempalace_mine"
SYNC = "mempalace_sync"
GUEST = 1


def guest() -> Talk:
    talk = Talk()
    talk.opens(GUEST, origin=Origin.GUEST)
    return talk


def asked(talk: Talk) -> fx.CheckPaths:
    """The one question to the app since the last look."""
    (found,) = [effect for effect in talk.seen if isinstance(effect, fx.CheckPaths)]
    talk.seen.remove(found)
    return found


def told(talk: Talk, question: fx.CheckPaths, refusal: str = "", **real: str) -> None:
    talk.protocol.guest_calls.checked(question.n, real or {path: path for path in question.paths}, refusal)
    talk.turn()


def arguments(talk: Talk) -> Any:
    (frame,) = talk.inside
    return json.loads(frame.payload)["params"]["arguments"]


def test_a_guests_mine_waits_for_the_look_and_gets_the_real_path() -> None:
    talk = guest()
    talk.says(GUEST, call(1, MINE, source="/ws/link", wing="w"))
    assert not talk.inside
    question = asked(talk)
    assert question.paths == ["/ws/link"]
    told(talk, question, **{"/ws/link": "/home/me/ws"})
    assert arguments(talk) == {"source": "/home/me/ws", "wing": "w"}
    assert talk.inside[0].verb == "confine"


def test_a_refused_path_never_reaches_the_engine() -> None:
    talk = guest()
    talk.says(GUEST, call(1, MINE, source="/home/me/.ssh"))
    told(talk, asked(talk), "/home/me/.ssh is not shared")
    error = talk.answer(GUEST)["error"]
    assert (error["code"], error["message"]) == (errors.INVALID_PARAMS, "/home/me/.ssh is not shared")
    assert not talk.inside


@pytest.mark.parametrize(
    "path", ["ws", "~", "~/x", "~root", "x://y", "..", "/a\0b", 7, ["/a"], True, "\x1b[2J", "/" + "a/" * LONG]
)
@pytest.mark.parametrize(("tool", "name"), [(MINE, "source"), (SYNC, "project_dir")])
def test_only_absolute_paths_are_looked_at(tool: str, name: str, path: object) -> None:
    talk = guest()
    talk.says(GUEST, call(1, tool, **{name: path}))
    error = talk.answer(GUEST)["error"]
    assert error["code"] == errors.INVALID_PARAMS
    assert error["message"].isprintable()
    assert not talk.inside


def test_a_call_that_names_files_is_short() -> None:
    """It is parsed and written anew, at one go."""
    talk = guest()
    talk.says(GUEST, call(1, MINE, source="/a", wing="x" * LONG))
    assert talk.code(GUEST) == errors.INVALID_PARAMS
    assert not talk.inside


def test_the_host_is_not_asked_and_what_names_no_file_does_not_wait() -> None:
    talk = guest()
    talk.opens(2)
    talk.says(2, call(1, MINE, source="anything"))
    assert arguments(talk) == {"source": "anything"}
    assert talk.inside[0].verb == "call"
    talk.says(GUEST, call(1, MINE, source="/a"), call(2, KG_QUERY))
    assert [frame.verb for frame in talk.inside] == ["call", "call"]
    asked(talk)


def test_what_nobody_knows_is_not_run_for_a_guest() -> None:
    talk = Talk(up=False)
    talk.opens(GUEST, origin=Origin.GUEST)
    talk.opens(2)
    talk.engine_up(tools=[{"name": "mempalace_read_file", "inputSchema": {"type": "object"}}])
    talk.says(GUEST, call(1, "mempalace_read_file", path="/etc/passwd"))
    assert talk.code(GUEST) == errors.NOT_ALLOWED
    talk.says(2, call(1, "mempalace_read_file", path="/etc/passwd"))
    assert len(talk.inside) == 1


@pytest.mark.parametrize("end", ["cancel", "gone"])
def test_a_call_that_is_taken_back_meanwhile_never_runs(end: str) -> None:
    talk = guest()
    talk.says(GUEST, call(1, MINE, source="/a"))
    question = asked(talk)
    talk.says(GUEST, cancel(1)) if end == "cancel" else talk.gone(GUEST)
    told(talk, question)
    assert not talk.inside
    if end == "cancel":
        assert talk.protocol.sessions[GUEST].open_calls == 0


def test_a_broker_that_leaves_answers_what_it_has_not_looked_at() -> None:
    talk = guest()
    talk.says(GUEST, call(1, MINE, source="/a"))
    question = asked(talk)
    talk.opens(2)
    talk.says(2, request(1, "broker/stop", mode="now"))
    told(talk, question)
    assert talk.code(GUEST) == errors.NOT_EXECUTED
    assert not talk.inside


def test_two_guests_do_not_get_each_others_answers() -> None:
    talk = guest()
    talk.opens(3, origin=Origin.GUEST)
    talk.says(GUEST, call(1, MINE, source="/a"))
    first = asked(talk)
    talk.says(3, call(1, MINE, source="/b"))
    second = asked(talk)
    assert (first.conn, second.conn) == (GUEST, 3)
    told(talk, first, "no")
    told(talk, second)
    assert arguments(talk) == {"source": "/b"}


def test_the_users_own_programs_over_http_name_any_file_by_its_whole_path() -> None:
    talk = Talk()
    talk.opens(GUEST, origin=Origin.USER)
    talk.says(GUEST, call(1, MINE, source="docs"))
    assert talk.code(GUEST) == errors.INVALID_PARAMS
    talk.says(GUEST, call(2, MINE, source="/home/me/docs"))
    assert arguments(talk) == {"source": "/home/me/docs"}
    assert talk.inside[0].verb == "call"
