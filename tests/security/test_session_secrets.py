"""One session can't take another's name, its recorded answers, or its future: what it is known by is a secret.

The attacker is a client of the same socket that learned all that `status` shows, and the victim's name besides.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from mempalace_broker.protocol.hello import HELLO, OUTCOMES, WIRE_VERSION
from tests.harness import Broker, World
from tests.rawpeer import RawPeer

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]

NAME, OWN, OTHER = "b" * 32, "1" * 32, "2" * 32


class Client(RawPeer):
    """A client that speaks the shim's protocol, as it likes."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._asked = 0

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The response to a request."""
        self._asked += 1
        id_ = HELLO if method == HELLO else f"{method} {self._asked}"
        self.send({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
        lines = self.wait(lambda lines: any(json.loads(line)["id"] == id_ for line in lines))
        found: dict[str, Any] = next(json.loads(line) for line in lines if json.loads(line)["id"] == id_)
        return found

    def greet(self, connection: int, secret: str | None = OWN, name: str = NAME) -> dict[str, Any]:
        more = {} if secret is None else {"secret": secret}
        return self.ask(HELLO, wire=WIRE_VERSION, session=name, connection=connection, client="x", pid=1, **more)

    def write(self, subject: str) -> dict[str, Any]:
        arguments = {"subject": subject, "predicate": "has", "object": "o"}
        return self.ask("tools/call", name="mempalace_kg_add", arguments=arguments)

    def outcomes(self, connection: int, *lines: int) -> dict[str, Any]:
        answer = self.ask(OUTCOMES, connection=connection, lines=list(lines), age_s=1, epoch=1 << 40)
        told: dict[str, Any] = answer["result"]["outcomes"]
        return told


def test_status_shows_no_session_as_it_is_known(broker: Broker) -> None:
    with Client(broker) as owner:
        owner.greet(1)
        owner.ask("initialize", clientInfo={"name": "victim"})
        status = json.dumps(broker.status())
    assert '"victim"' in status
    assert NAME not in status
    assert OWN not in status


def test_who_has_the_name_and_not_the_secret_neither_drops_the_owner_nor_hears_its_answers(broker: Broker) -> None:
    with Client(broker) as owner, Client(broker) as thief, Client(broker) as bare:
        owner.greet(1)
        assert "result" in owner.write("vault")
        assert "another client" in thief.greet(2, OTHER)["error"]["message"]
        assert "outcomes" not in bare.greet(2, None)["result"]["capabilities"]
        assert "error" in bare.ask(OUTCOMES, connection=1, lines=[2], age_s=1)
        assert owner.ask("ping")["result"] == {}, "the owner is still there"
    with Client(broker) as thief:
        thief.greet(2, OTHER)  # nobody has that name now
        assert thief.outcomes(1, 1, 2, 3) == {line: {"state": "not_started"} for line in "123"}
    with Client(broker) as owner:
        owner.greet(3)
        assert owner.outcomes(1, 2)["2"]["state"] == "done"


def test_a_write_that_never_ran_can_t_be_made_to_look_done(broker: Broker) -> None:
    with Client(broker) as forger:
        forger.greet(7, OTHER)
        assert "result" in forger.write("forged")
    with Client(broker) as owner:
        owner.greet(8)
        assert owner.outcomes(7, 2) == {"2": {"state": "not_started"}}


def test_the_journal_says_nothing_that_leads_to_the_next_key(world: World, broker: Broker) -> None:
    with Client(broker) as owner:
        owner.greet(4)
        owner.write("one")
        owner.write("two")
    journal = (world.state_root / "broker.journal").read_bytes()
    keys = [line.split()[1] for line in journal.splitlines() if line.startswith(b"S ")]
    assert len(set(keys)) == 2
    assert not any(word in journal for word in (NAME.encode(), OWN.encode(), b".4.2"))
