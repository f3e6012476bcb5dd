"""Progress notifications: for calls whose client gave a token, and for no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mempalace_broker.broker.machine import effects as fx
from mempalace_broker.broker.machine.progress import EVERY_S
from mempalace_broker.broker.machine.session import Origin
from mempalace_broker.protocol.engine_frames import PROGRESS, Frame
from tests.unit.broker.machine.dialogue import ADD, SEARCH, Talk, call, cancel


def with_token(id_: object, tool: str, token: object, **arguments: Any) -> dict[str, Any]:
    message = call(id_, tool, **arguments)
    message["params"]["_meta"] = {"progressToken": token}
    return message


def told(talk: Talk, conn: int) -> list[dict[str, Any]]:
    """The parameters of the notifications of that connection; all lines are one."""
    lines = [json.loads(effect.data) for effect in talk.seen if isinstance(effect, fx.Send) and effect.conn == conn]
    talk.seen = [effect for effect in talk.seen if not isinstance(effect, fx.Send)]
    assert all(line["method"] == "notifications/progress" and "id" not in line for line in lines)
    return [line["params"] for line in lines]


@pytest.mark.parametrize("token", ["t", 0, 7, -1, ""])
def test_a_call_that_runs_for_long(token: str | int) -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, with_token(1, SEARCH, token))
    talk.wait(EVERY_S - 0.1)
    assert told(talk, 1) == []
    talk.wait(0.1)
    assert told(talk, 1) == [{"progressToken": token, "progress": EVERY_S, "message": "running for 5 s"}]
    talk.wait(EVERY_S)
    assert [entry["progress"] for entry in told(talk, 1)] == [2 * EVERY_S]
    talk.done(talk.inside[0])
    talk.seen.clear()
    talk.wait(EVERY_S)
    assert told(talk, 1) == []
    assert talk.protocol._progress.next_deadline() is None


def test_a_call_that_waits_is_told_what_for_and_nothing_of_other_sessions() -> None:
    talk = Talk()
    talk.opens(1, 2)
    talk.says(1, call(1, ADD, content="secret"))
    talk.says(2, with_token(1, ADD, "t", content="x"))
    talk.wait(EVERY_S)
    assert told(talk, 2) == [{"progressToken": "t", "progress": 5.0, "message": "waiting for its turn for 5 s"}]


def test_while_the_engine_starts() -> None:
    talk = Talk(up=False)
    talk.opens(1)
    talk.says(1, with_token(1, SEARCH, "t"))
    talk.wait(EVERY_S)
    (entry,) = told(talk, 1)
    assert entry["message"].startswith("waiting for the engine, which has been ")


@pytest.mark.parametrize("token", [None, True, 1.5, [], {}, "x" * 300, 10**30])
def test_no_token_no_notification(token: object) -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, with_token(1, SEARCH, token))
    talk.wait(EVERY_S)
    assert told(talk, 1) == []


def test_meta_that_is_no_object() -> None:
    talk = Talk()
    talk.opens(1)
    message = call(1, SEARCH)
    message["params"]["_meta"] = "progressToken"
    talk.says(1, message)
    talk.wait(EVERY_S)
    assert told(talk, 1) == []


def test_a_request_over_http_has_room_for_its_answer_only() -> None:
    talk = Talk()
    talk.protocol.opened(1, talk.now, origin=Origin.USER, agent="curl")
    talk.says(1, with_token(1, SEARCH, "t"))
    talk.wait(EVERY_S)
    assert told(talk, 1) == []


def test_not_after_it_was_cancelled_or_its_client_has_gone() -> None:
    talk = Talk()
    talk.opens(1, 2)
    talk.says(1, with_token(1, SEARCH, "t"), cancel(1))
    talk.says(2, with_token(1, SEARCH, "t"))
    talk.gone(2)
    talk.wait(EVERY_S)
    assert (told(talk, 1), told(talk, 2)) == ([], [])


MINE = "mempalace_mine"


def mining(talk: Talk) -> None:
    """A mine that has been given to the engine, and whose client wants to know how far it is."""
    talk.opens(1)
    talk.says(1, with_token(1, MINE, "t", source="/s"))


def goes_on(talk: Talk, tag: str) -> None:
    talk.dispatcher.frame(Frame(PROGRESS, talk.inside[0].n, tag=tag), talk.now)


def test_a_mine_counts_its_files_and_always_moves_on() -> None:
    talk = Talk()
    mining(talk)
    talk.wait(EVERY_S)
    talk.wait(EVERY_S)
    assert [entry["progress"] for entry in told(talk, 1)] == [0.001, 0.002]
    goes_on(talk, "1/60")
    talk.wait(EVERY_S)
    goes_on(talk, "31/60")
    talk.wait(EVERY_S)
    talk.wait(EVERY_S)
    first, *later = told(talk, 1)
    assert (first["progress"], first["total"]) == (0.003, 60)
    assert first["message"] == "file 1 of 60 (0 % done), running for 15 s"
    assert [(entry["progress"], entry["total"]) for entry in later] == [(30, 60), (30.001, 60)]
    assert later[0]["message"] == "file 31 of 60 (50 % done), running for 20 s"


@pytest.mark.parametrize("tag", ["", "-", "1", "1/", "/5", "a/b", "-1/5", "1/5/6", f"{10**30}/{10**30}"])
def test_progress_that_is_none_is_ignored(tag: str) -> None:
    talk = Talk()
    mining(talk)
    goes_on(talk, tag)
    talk.dispatcher.frame(Frame(PROGRESS, 999, tag="1/5"), talk.now)
    talk.wait(EVERY_S)
    assert "total" not in told(talk, 1)[0]
