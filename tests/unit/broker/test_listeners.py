"""Who is dropped when a token is replaced: the clients that showed it, and nobody else."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from mempalace_broker.broker.listeners import Listeners
from mempalace_broker.broker.turns import Turns
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.settings_files import PrivateSettings
from mempalace_broker.system.paths import StateFiles
from mempalace_broker.system.token_file import replace_token
from tests.fakes.clock import FakeClock


class Client:
    def __init__(self, via: str) -> None:
        self.via = via
        self.dropped = ""

    def drop(self, reason: str) -> None:
        self.dropped = reason


def test_a_new_token_for_tcp_ends_no_session_of_another_transport(tmp_path: Path) -> None:
    clients = [Client("unix"), Client("http"), Client("tcp 127.0.0.1")]
    clock, env = FakeClock(), {"MEMPALACE_BROKER_PRIVATE": str(tmp_path / "own")}
    log = logging.getLogger("mempalace_broker.test")
    runner = SimpleNamespace(conns=dict(enumerate(clients)), log=log, stall_s=60.0, turns=Turns())
    listeners = Listeners(
        cast(Any, runner),
        identity=PalaceIdentity(str(tmp_path / "palace"), str(tmp_path / "graph"), "flag"),
        files=StateFiles(str(tmp_path), str(tmp_path / "palace"), env=env),
        settings=PrivateSettings().broker({"MEMPALACE_BROKER_TCP": "127.0.0.1"}),
        env=env,
        clock=clock,
        tasks=cast(Any, None),
        status=dict,
    )
    loop = cast(Any, SimpleNamespace(add_reader=lambda *_: None, remove_reader=lambda *_: None))
    listeners.tcp.start(loop)
    try:
        replace_token(str(tmp_path))
        clock.move(2.0)
        assert listeners.tcp.check(loop)
    finally:
        listeners.tcp.close()
    assert [bool(client.dropped) for client in clients] == [False, False, True]
