"""Whatever a broker says, as it may be a container's, the shim survives, and its agent gets one answer to a request."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from mempalace_broker.protocol.hello import HELLO, OUTCOMES
from tests.unit.shim.machine.dialogue import ADD, SEARCH, Talk, call, result

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["\ud800", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KNOWN = [
    "wire",
    "limits",
    "lease",
    "files",
    "capabilities",
    "outcomes",
    "record",
    "palace",
    "notice",
    "broker",
    "tools",
]
told = st.dictionaries(st.sampled_from(KNOWN), values | st.dictionaries(st.sampled_from(["1", "2", "epoch"]), values))
ids = st.sampled_from([HELLO, OUTCOMES, 1, 2, "1", 1.0, 3, None, True])
messages = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "id": ids | values,
        "result": told | values,
        "error": st.fixed_dictionaries({}, optional={"code": values, "message": values}) | values,
        "method": st.sampled_from(["notifications/progress", HELLO, "broker/x", "ping"]) | values,
        "params": values,
    },
)
lines = messages.map(json.dumps).map(str.encode) | st.binary(max_size=40).map(lambda data: data.replace(b"\n", b""))


@settings(max_examples=150, deadline=None)
@given(st.lists(lines, max_size=8), st.booleans())
def test_whatever_a_broker_says(said: list[bytes], greeted: bool) -> None:
    talk = Talk()
    talk.connect() if greeted else talk.open()
    talk.agent(call(1, SEARCH), call(2, ADD, wing="w"))
    for line in said:
        talk.broker(line)
    talk.lose()
    talk.connect()
    talk.outcomes({})
    for id_ in (1, 2):
        talk.broker(result(id_))
    talk.later(1000)
    answered = Counter(
        json.dumps(message["id"])
        for message in talk.heard_by_agent()
        if "id" in message and ("result" in message or "error" in message)  # with or without a method, too
    )
    assert (answered["1"], answered["2"]) == (1, 1)
