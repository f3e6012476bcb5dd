"""Any history of agents, brokers and time: one answer per request, no write twice, no false "not executed"."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mempalace_broker.errors import NOT_EXECUTED, OTHER_PALACE
from mempalace_broker.protocol.hello import HELLO, OUTCOMES
from tests.unit.shim.machine.dialogue import ADD, LIMITS, SEARCH, Talk, call, cancelled, result

METHODS = ["write", "write", "write", "read", "read", "initialize", "tools/list", "ping", "server/discover"]
PAUSES = [0.0, 0.0, 0.1, 0.1, 1.0, 1.0, 1.0, 2.0, 2.0, 5.0, 5.0, 20.0, 31.0, 130.0, 250.0]


class Histories(RuleBasedStateMachine):
    """A shim, an agent that asks, and brokers that read, run, answer or die. Each request carries a token."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk()
        self.tokens = 0
        self.asked: dict[int, tuple[Any, str]] = {}  # token -> id, kind
        self.excused: set[int] = set()
        self.answers: list[dict[str, Any]] = []
        self.runs: dict[int, int] = {}
        self.journal: dict[tuple[int, int], tuple[str, Any]] = {}  # (connection, ordinal) -> fate, response
        self.connection = 0
        self.read: list[tuple[int, dict[str, Any]]] = []  # lines read and not yet dealt with, with their ordinals
        self.ordinal = 0
        self.unread: list[dict[str, Any]] = []

    # -- the agent

    @rule(kind=st.sampled_from(METHODS), id_=st.sampled_from([None, None, None, 1, "1", "broker/1"]))
    def ask(self, kind: str, id_: Any) -> None:
        self.tokens += 1
        token = self.tokens
        id_ = f"t{token}" if id_ is None else id_
        self.asked[token] = (id_, kind)
        if kind in ("read", "write"):
            self.talk.agent(call(id_, SEARCH if kind == "read" else ADD, token=token))
        else:
            self.talk.agent({"jsonrpc": "2.0", "id": id_, "method": kind, "params": {}})

    @rule(kind=st.sampled_from(["read", "write", "write"]))
    def ask_and_have_it_read(self, kind: str) -> None:
        self.ask(kind, None)
        if not self.talk.protocol.connection.up:
            self.connect(True)
        self.broker_reads(100)

    @rule(data=st.data())
    @precondition(lambda self: self.asked)
    def cancel(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(sorted(self.asked)))
        id_, _ = self.asked[token]
        if sum(other == id_ and type(other) is type(id_) for other, _ in self.asked.values()) == 1:
            self.excused.add(token)
            self.talk.agent(cancelled(id_))

    # -- the broker

    @rule(greets=st.sampled_from([True, True, True, False]))
    @precondition(lambda self: not self.talk.protocol.connection.up and self.asked)
    def connect(self, greets: bool) -> None:
        self.talk.later(max(0.0, self.talk.protocol.reconnect.retry_at - self.talk.now))
        if not self.talk.protocol.wants_connection(self.talk.now):
            return
        self.connection += 1
        self.ordinal = 0
        self.read, self.unread = [], []
        self.talk.open()
        if greets:
            self.broker_reads(1)
            self.read.clear()
            self.talk.welcome()

    @rule(lines=st.sampled_from([1, 2, 3, 100]))
    @precondition(lambda self: self.talk.protocol.connection.up)
    def broker_reads(self, lines: int) -> None:
        if not self.talk.protocol.connection.up:
            return
        self.unread += self.talk.heard_by_broker()
        for message in self.unread[:lines]:
            self.ordinal += 1
            self.read.append((self.ordinal, message))
        del self.unread[:lines]

    @rule(data=st.data(), refuse=st.integers(0, 9))
    @precondition(lambda self: self.talk.protocol.connection.up and self.read)
    def broker_answers(self, data: st.DataObject, refuse: int) -> None:
        asked = [n for n, entry in enumerate(self.read) if entry[1]["method"] == OUTCOMES]
        index = asked[0] if asked and refuse > 4 else data.draw(st.integers(0, len(self.read) - 1))
        ordinal, message = self.read.pop(index)
        method, id_ = message["method"], message.get("id")
        if method == HELLO and refuse == 0:
            self.talk.broker({"jsonrpc": "2.0", "id": HELLO, "error": {"code": OTHER_PALACE, "message": "no"}})
            self.lose()
        elif method == HELLO:
            self.talk.broker(result(HELLO, {"limits": LIMITS}))
        elif method == OUTCOMES:
            lost = message["params"]["connection"]
            self.talk.outcomes({str(n): self.fate(lost, n) for n in message["params"]["lines"]})
        elif method == "tools/call":
            self.talk.broker(self.run(ordinal, message))
        elif id_ is not None:
            self.talk.broker(result(id_))

    @rule(data=st.data(), done=st.booleans(), back=st.booleans())
    @precondition(lambda self: self.talk.protocol.connection.up and self.read)
    def broker_runs_and_dies(self, data: st.DataObject, done: bool, back: bool) -> None:
        """The worst moment: the write ran, or had begun, and nobody was told."""
        calls = [entry for entry in self.read if entry[1]["method"] == "tools/call"]
        if calls:
            ordinal, message = data.draw(st.sampled_from(calls))
            response = self.run(ordinal, message)
            self.journal[self.connection, ordinal] = ("done", response) if done else ("unknown", None)
        self.lose()
        if back and self.asked:
            self.connect(True)
            self.broker_reads(100)

    @rule()
    @precondition(lambda self: self.talk.protocol.connection.up)
    def lose(self) -> None:
        self.talk.heard_by_broker()
        self.talk.lose()

    @rule(really=st.sampled_from([True, False, False]))
    @precondition(lambda self: not self.talk.protocol.connection.up)
    def none_to_be_had(self, really: bool) -> None:
        if really:
            self.talk.protocol.failed(NOT_EXECUTED, "none", self.talk.now)

    @rule(seconds=st.sampled_from(PAUSES))
    def wait(self, seconds: float) -> None:
        self.talk.later(seconds)

    def run(self, ordinal: int, message: dict[str, Any]) -> dict[str, Any]:
        token = message["params"]["arguments"]["token"]
        if message["params"]["name"] == ADD:
            self.runs[token] = self.runs.get(token, 0) + 1
        response = result(message["id"], {"token": token})
        self.journal[self.connection, ordinal] = ("done", response)
        return response

    def fate(self, connection: int, ordinal: int) -> dict[str, Any]:
        state, response = self.journal.get((connection, ordinal), ("not_started", None))
        return {"state": state, "response": response} if response else {"state": state}

    # -- what must hold

    @invariant()
    def no_write_runs_twice(self) -> None:
        assert all(count == 1 for count in self.runs.values()), self.runs

    @invariant()
    def no_request_is_answered_twice(self) -> None:
        self.answers += self.talk.heard_by_agent()
        for key, count in self.count(self.answers).items():
            assert count <= self.count([{"id": id_} for id_, _ in self.asked.values()]).get(key, 0), key

    @invariant()
    def answers_belong_to_their_requests(self) -> None:
        for answer in self.answers:
            token = (answer.get("result") or {}).get("token")
            assert token is None or json.dumps(self.asked[token][0]) == json.dumps(answer["id"])

    @staticmethod
    def count(messages: list[dict[str, Any]]) -> dict[str, int]:
        found: dict[str, int] = {}
        for message in messages:
            key = json.dumps(message["id"])
            found[key] = found.get(key, 0) + 1
        return found

    def teardown(self) -> None:
        """After long enough everything owed was answered, and what was called not executed never ran."""
        for _ in range(3):
            self.talk.later(400)
        self.answers += self.talk.heard_by_agent()
        self.no_request_is_answered_twice()
        answered = self.count(self.answers)
        excused = {json.dumps(self.asked[token][0]) for token in self.excused}
        for key, count in self.count([{"id": id_} for id_, _ in self.asked.values()]).items():
            assert answered.get(key, 0) == count or (key in excused and answered.get(key, 0) == count - 1), key
        by_id = {json.dumps(id_): token for token, (id_, _) in self.asked.items()}
        for answer in self.answers:
            key = json.dumps(answer["id"])
            if answered[key] == 1 and answer.get("error", {}).get("code") == NOT_EXECUTED:
                assert by_id[key] not in self.runs, f"{answer} but it ran"


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
