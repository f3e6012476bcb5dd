from __future__ import annotations

import logging
import resource

import pytest

from mempalace_broker.broker.admission import MOST, SILENT_S, Admission, largest_of, most_connections, only_asks
from mempalace_broker.protocol.framing import TooLong
from tests.fakes.clock import FakeClock

LOG = logging.getLogger("test-admission")


class Client:
    def __init__(self, who: str, opened: float = 0.0, *, heard: bool = True) -> None:
        self.who, self.opened, self.heard, self.leaving = who, opened, heard, False

    def drop(self, reason: str) -> None:
        self.leaving = True


def clients(count: int, who: str = "a") -> list[Client]:
    return [Client(who, float(number)) for number in range(count)]


@pytest.mark.parametrize(
    ("soft", "most"),
    [(96, 48), (256, 128), (1024, 864), (10240, MOST), (resource.RLIM_INFINITY, MOST)],
)
def test_a_reserve_of_descriptors_is_kept(monkeypatch: pytest.MonkeyPatch, soft: int, most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert most_connections() == most


def test_the_largest_goes_only_where_all_together_are_too_many() -> None:
    assert largest_of([], int, 0) is None
    assert largest_of([3, 4, 3], int, 10) is None
    assert largest_of([3, 5, 3], int, 10) == 5


def test_one_user_leaves_room_for_another() -> None:
    gate = Admission(FakeClock(), LOG, lambda: 16)
    assert gate.refusal("a", clients(13)) == ""
    assert "14 connections" in gate.refusal("a", clients(14))
    assert gate.refusal("b", clients(14)) == ""
    assert "takes no more" in gate.refusal("b", clients(14) + clients(2, "c"))
    assert gate.refused == 2


def test_who_never_spoke_goes_first_the_oldest_of_them() -> None:
    clock = FakeClock(0.0)
    gate = Admission(clock, LOG, lambda: 16)
    crowd = clients(14)
    crowd[3].heard = crowd[5].heard = False
    clock.move(20)
    assert gate.refusal("a", crowd) == ""
    assert [client.leaving for client in crowd].index(True) == 3
    assert gate.refusal("a", [*crowd, Client("a", 20.0)]) == ""
    assert [number for number, client in enumerate(crowd) if client.leaving] == [3, 5]


def test_a_client_has_a_moment_to_speak() -> None:
    clock = FakeClock()
    gate = Admission(clock, LOG, lambda: 16)
    crowd = [Client("a", clock.monotonic(), heard=False) for _ in range(14)]
    assert gate.refusal("a", crowd)
    clock.move(SILENT_S)
    assert not gate.refusal("a", crowd)


def test_refusals_are_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    gate = Admission(FakeClock(), LOG, lambda: 16)
    for _ in range(100):
        gate.refusal("uid 7", clients(14, "uid 7"))
    assert [record.getMessage() for record in caplog.records] == [
        "refused a connection of uid 7: there are 14 (1 refused so far)"
    ]


@pytest.mark.parametrize(
    ("lines", "asks"),
    [
        ([], True),
        ([b'{"id": 1, "method": "broker/status"}', b'{"id": 2, "method": "broker/stop", "params": {}}'], True),
        ([b'{"id": 1, "method": "broker/status"}', b'{"id": 2, "method": "tools/call"}'], False),
        ([b'{"id": 1, "method": "broker/hello"}'], False),
        ([b'[{"id": 1, "method": "broker/status"}]'], False),
        ([b'{"id": 1, "method": "broker/status", "params": {"a": "%b"}}' % (b"a" * 20_000)], False),
        ([TooLong(1)], False),
        ([b""], False),
    ],
)
def test_what_a_client_without_room_may_ask(lines: list[bytes | TooLong], asks: bool) -> None:
    assert only_asks(lines) is asks
