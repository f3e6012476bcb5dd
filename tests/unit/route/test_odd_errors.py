"""A dial that is answered with an error that no plain socket gives: on a share, it is the share that answers."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.errors import BrokerUnavailable
from mempalace_broker.locality import locality
from mempalace_broker.locality.locality import NoElectionHere
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.route import dial
from mempalace_broker.route.ask import ask_broker
from mempalace_broker.route.attempt import Failed, Waiting
from mempalace_broker.route.unix import UnixRoute
from mempalace_broker.system.clock import Clock, Deadline
from mempalace_broker.system.paths import Context

ODD = [errno.EINVAL, errno.EOPNOTSUPP, errno.EIO, errno.EPERM]


@pytest.fixture(params=ODD, ids=errno.errorcode.get)
def number(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(dial, "connect", refuse)
    return int(request.param)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    palace = str(tmp_path / "palace")
    return Context(PalaceIdentity(palace, f"{palace}/knowledge_graph.sqlite3", "flag"), {"HOME": str(tmp_path)})


def nobody(*_: Any, **__: Any) -> Any:
    pytest.fail("a broker was started")


def soon() -> Deadline:
    return Deadline.after(Clock(), 5)


def test_on_a_share_the_other_routes_are_tried(context: Context, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locality, "filesystem_of", lambda path: "virtiofs")
    found = UnixRoute(context, soon(), spawn=nobody).step()
    assert isinstance(found, Failed)
    assert isinstance(found.error, NoElectionHere)
    reply = ask_broker(context, "broker/status", {}, soon())
    assert reply.unreachable


def test_on_a_local_disk_it_teaches_nothing(context: Context, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locality, "filesystem_of", lambda path: "ext4")
    found = UnixRoute(context, soon(), spawn=nobody).step()
    if number == errno.EPERM:
        assert isinstance(found, Failed)
        assert "may not use unix sockets" in str(found.error)
        with pytest.raises(BrokerUnavailable, match="may not use unix sockets"):
            ask_broker(context, "broker/status", {}, soon())
    else:
        assert isinstance(found, Waiting)
        assert os.strerror(number) in found.why
        assert not ask_broker(context, "broker/status", {}, soon()).unreachable
