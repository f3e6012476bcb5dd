"""A second PostgreSQL takes over from the first while agents write: its standby, which has each acknowledged commit."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mempalace_broker import errors
from tests.background import Background
from tests.harness import RpcError, World, eventually
from tests.postgres import DSN, Postgres, require_postgres
from tests.tcptools import Forwarder

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300), pytest.mark.xdist_group("databases")]

AGENTS, BEFORE, AFTER = 2, 12, 12  # acknowledged writes
FIRST, SECOND = "127.0.0.2", "127.0.0.3"
PAUSE_S = 0.1  # after a failed call
TOKEN = re.compile(r"tok\d+x\d+e")
REFUSED = ("Connection refused", "server closed the connection", "connection failed", "terminating connection")


class Agent(Background):
    """Writes drawers and diary entries until the block ends, and remembers what it was told.

    Attributes:
        acknowledged: tokens. failed: what it was told instead, by the token. codes: of errors of ours among them.
    """

    def __init__(self, world: World, number: int) -> None:
        self._number = number
        self._shim = world.shim()
        self._ending = False
        self.acknowledged: list[str] = []
        self.failed: dict[str, str] = {}
        self.codes: dict[str, int] = {}
        self.end_s = 60.0

    def run(self) -> None:
        self._shim.initialize()
        count = 0
        while not self._ending:
            count += 1
            self._write(f"tok{self._number}x{count}e", diary=count % 2 == 0)

    def end(self) -> None:
        self._ending = True

    def add_fact(self) -> bool:
        """Write to the graph, which is not in the database, beside the other writes."""
        return bool(self._shim.call_tool("kg_add", subject="a", predicate="is", object="b")["success"])

    def _write(self, token: str, *, diary: bool) -> None:
        try:
            if diary:
                told = self._shim.call_tool(
                    "diary_write", 60, agent_name=f"agent{self._number}", entry=f"entry {token}"
                )
            else:
                told = self._shim.call_tool("add_drawer", 60, wing="w", room="r", content=f"note about {token}")
        except RpcError as exc:
            self.codes[token] = exc.code
            self.failed[token] = exc.message
            return
        if told["success"]:
            self.acknowledged.append(token)
        else:
            self.failed[token] = str(told["error"])
            time.sleep(PAUSE_S)


@contextmanager
def servers() -> Iterator[tuple[Postgres, Postgres]]:
    """Yield a server and its standby, which has every commit before it is acknowledged."""
    require_postgres()
    with Postgres(FIRST) as first, Postgres(SECOND, first) as second:
        first.wait_for_standby()
        yield first, second


def written(world: World, more: int, agents: list[Agent]) -> None:
    """Wait for so many more acknowledged writes."""
    goal = sum(len(agent.acknowledged) for agent in agents) + more
    eventually(lambda: sum(len(agent.acknowledged) for agent in agents) >= goal, 60, f"writes ({world.log()[-1500:]})")


def stored(server: Postgres) -> Counter[str]:
    """How often each token is in the database."""
    (table,) = (name for name in server.tables() if name.endswith("_drawers"))
    rows = server.sql(f"SELECT replace(document, E'\\n', ' ') FROM \"{table}\"")
    return Counter(token for row in rows for token in set(TOKEN.findall(row)))


def world_at(address: str) -> World:
    world = World("databases", env={"MEMPALACE_BACKEND": "pgvector", "MEMPALACE_MCP_TIMEOUT_MS": "4000"})
    world.settings.write_text(f'[broker]\nenv = {{ {DSN} = "{address}" }}\n')
    return world


def judge(world: World, server: Postgres, agents: list[Agent]) -> None:
    """Compare the server with what the agents were told."""
    found = stored(server)
    acknowledged = {token for agent in agents for token in agent.acknowledged}
    assert not acknowledged - set(found), "acknowledged writes are lost"
    assert not [token for token, count in found.items() if count > 1], "stored twice"
    refused = {token for agent in agents for token, code in agent.codes.items() if code == errors.WAIT_TIMEOUT}
    assert not refused & set(found), "answered as not executed, but stored"
    eventually(lambda: not world.broker().status()["degraded"], what="a broker that is well again")
    reader = world.shim()
    reader.initialize()
    assert reader.call_tool("status")["total_drawers"] == sum(found.values())


@pytest.mark.parametrize(
    ("addresses", "silent"),
    [
        (1, False),
        pytest.param(1, True, marks=pytest.mark.slow),
        pytest.param(2, False, marks=pytest.mark.slow),
    ],
    ids=["the address moves", "the address moves from a silent machine", "the address names both"],
)
def test_a_second_server_takes_over(addresses: int, silent: bool) -> None:
    with servers() as (first, second), Forwarder((FIRST, first.port)) as road:
        place = f"127.0.0.1:{road.port}/postgres"
        if addresses == 2:
            place = f"{FIRST},{SECOND}/postgres?port={first.port}&target_session_attrs=read-write"
        with world_at(f"postgresql://palace:{first.password}@{place}") as world:
            agents = [Agent(world, number) for number in range(AGENTS)]
            with agents[0], agents[1]:
                written(world, BEFORE, agents)
                broker, engine = world.broker().pid, world.broker().engine_pid()
                early = [len(agent.failed) for agent in agents]  # calls that the start of a slow engine outlasted
                if silent:
                    first.pause()
                else:
                    first.kill()
                eventually(lambda: early != [len(agent.failed) for agent in agents], 30, "a failed call")
                assert agents[0].add_fact()
                second.promote()
                road.target = (SECOND, second.port)
                written(world, AFTER, agents)
            assert world.broker().pid == broker
            if silent:
                codes = {code for agent in agents for code in agent.codes.values()}
                assert errors.OUTCOME_UNKNOWN in codes
                assert codes <= {errors.OUTCOME_UNKNOWN, errors.WAIT_TIMEOUT}
            else:
                assert world.broker().engine_pid() == engine
                told = [text for agent, n in zip(agents, early, strict=True) for text in [*agent.failed.values()][n:]]
                assert all(any(word in text for word in REFUSED) for text in told), told
            judge(world, second, agents)
