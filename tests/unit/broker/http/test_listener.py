"""The listener for HTTP, without a client: how many it keeps, and what outlives it."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mempalace_broker.broker.http import listener as mod
from mempalace_broker.broker.http.hub import AnotherHub
from mempalace_broker.broker.http.listener import HttpListener
from mempalace_broker.broker.http.machine.gate import Admitted, Head, Refusal, Route
from mempalace_broker.broker.http.viewing import Viewing
from mempalace_broker.broker.tasks import Tasks
from mempalace_broker.broker.turns import Turns
from mempalace_broker.settings_files import PrivateSettings
from mempalace_broker.system.paths import StateFiles
from mempalace_broker.system.token_file import METRICS_FILE, private_token
from tests.fakes.clock import FakeClock


class Connection:
    def __init__(self, *, known: bool = False, is_guest: bool = False, reply: object = None) -> None:
        self.known, self.is_guest, self.reply = known, is_guest, reply
        self.dropped = self.at_rest = False
        self.unread = 0

    def drop(self) -> None:
        self.dropped = True

    def overdue(self, now: float) -> bool:
        return False


class Parent:
    closed = False

    def close(self) -> None:
        self.closed = True


class Desk:
    def __init__(self, root: Path) -> None:
        self.answers = SimpleNamespace(tools=None, protocols=("2025-11-25",))
        report = SimpleNamespace(fingerprint=None)
        protocol = SimpleNamespace(answers=self.answers, sessions={}, dispatcher=SimpleNamespace(report=report))
        log = logging.getLogger("mempalace_broker.test")
        runner = SimpleNamespace(protocol=protocol, log=log, stall_s=60.0, turns=Turns())
        env = {"MEMPALACE_BROKER_PRIVATE": str(root / "own"), "HOME": str(root)}
        files = StateFiles(str(root), str(root / "palace"), env=env)
        self.own, self.private = root / "own", files.private
        assert not files.private.make()
        self.listener = HttpListener(
            cast(Any, runner),
            settings=PrivateSettings().broker({}),
            files=files,
            env=env,
            clock=FakeClock(),
            tasks=(tasks := Tasks(lambda name, exc: None)),
            number=lambda: 1,
            viewing=Viewing(status=dict, health=cast(Any, None), clock=FakeClock(), tasks=tasks),
        )

    def comes(self, **more: Any) -> Connection:
        connection = Connection(**more)
        self.listener.made(cast(Any, connection))
        return connection


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.listener.close()


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


def test_many_at_once_push_out_as_many(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mod, "MOST", 3)

    async def work() -> None:
        known = desk.comes(known=True)
        strangers = [desk.comes() for _ in range(5)]
        assert [known.dropped, *(one.dropped for one in strangers)] == [False, True, True, True, False, False]
        served = [desk.comes(reply=object()) for _ in range(3)]
        assert known.dropped
        assert desk.comes().dropped, "all others wait for answers"
        assert not any(one.dropped for one in served)

    run(work)


def test_whoever_has_the_most_unread_bytes_goes_when_all_have_too_many(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mod, "MOST_UNREAD", 10)

    async def work() -> None:
        there = [desk.comes() for _ in range(3)]
        told = []
        for there[0].unread, there[1].unread in ((4, 6), (4, 7)):
            desk.listener.limit_unread()
            told.append([one.dropped for one in there])
        assert told == [[False] * 3, [False, True, False]]

    run(work)


def test_a_connection_that_outlives_the_listener_is_no_stranger(desk: Desk) -> None:
    async def work() -> None:
        await desk.listener.check()
        head = Head("GET", "/healthz", {b"host": b"127.0.0.1:%d" % desk.listener.port})
        desk.listener.close()
        assert not desk.listener.port
        assert not isinstance(desk.listener.judge(head), Refusal)

    run(work)


def test_a_link_to_the_page(desk: Desk) -> None:
    async def work() -> None:
        assert json.loads(desk.listener.open_page(7))["result"]["url"] is None, "it does not listen yet"
        await desk.listener.check()
        answer = json.loads(desk.listener.open_page(7))
        assert answer["id"] == 7
        place, _, code = answer["result"]["url"].partition("/#")
        assert place == f"http://127.0.0.1:{desk.listener.port}"
        login = {b"host": b"127.0.0.1", b"authorization": b"Login " + code.encode()}
        assert desk.listener.judge(Head("POST", "/page/login", login)) == Admitted(Route.PAGE_LOGIN, detail=code)

    run(work)


def test_a_token_for_metrics_counts_once_there_is_one(desk: Desk) -> None:
    async def work() -> None:
        await desk.listener.check()
        files = sorted(entry.name for entry in (desk.own / "state").rglob("*-token"))
        assert files == ["http-token"], "nobody has asked for one"
        token = private_token(desk.private.file(METRICS_FILE))
        head = Head("GET", "/metrics", {b"host": b"localhost", b"authorization": b"Bearer " + token.encode()})
        assert isinstance(desk.listener.judge(head), Refusal)
        await desk.listener.check()
        assert desk.listener.judge(head) == Admitted(Route.METRICS, token)

    run(work)


def test_a_token_that_cannot_be_read_for_a_moment_is_no_lasting_fault(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def work() -> None:
        await desk.listener.check()
        with monkeypatch.context() as patch:
            patch.setattr(desk.listener._tokens, "read", fail)
            await desk.listener.check()
        (warning,) = desk.listener.degraded()
        assert "Too many open files" in warning["what"]
        assert "not listening" not in warning["what"]
        await desk.listener.check()
        assert not desk.listener.degraded()

    run(work)


@pytest.mark.parametrize("fails", [False, True])
def test_the_broker_before_us_stays_until_there_is_a_record(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    parent = Parent()

    def publish(*_: object) -> None:
        if fails:
            raise AnotherHub("pid 7")

    async def work() -> None:
        await desk.listener.check()
        monkeypatch.setattr(desk.listener, "_taken", SimpleNamespace(parent=parent))
        await desk.listener.check()
        assert not parent.closed, "the engine has not reported its tools yet"
        desk.answers.tools = []
        monkeypatch.setattr(desk.listener._hub, "publish", publish)
        await desk.listener.check()
        assert parent.closed

    run(work)
