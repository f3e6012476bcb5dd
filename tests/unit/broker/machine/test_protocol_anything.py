"""Whatever clients send, the protocol survives, no request is answered twice, and other clients notice nothing."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mempalace_broker.broker.machine import effects as fx
from mempalace_broker.protocol.hello import HELLO, OUTCOMES
from mempalace_broker.protocol.tools import TOOLS
from tests.unit.broker.machine.dialogue import Talk, call

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["\ud800", 10**30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ids = st.integers(0, 3) | st.sampled_from(["0", "1", 1.5, -0.0, 10**30, "\ud800"]) | values
methods = st.sampled_from(
    ["tools/call", "tools/call", "tools/list", "initialize", "ping", HELLO, OUTCOMES, "broker/status", "broker/x", "x"]
) | st.just("notifications/cancelled")
named = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from([*TOOLS, "strange", "none"]) | values,
        "arguments": st.dictionaries(st.sampled_from(["query", "apply", "timeout_ms"]), values, max_size=2) | values,
        "requestId": ids,
        "connection": values | st.just(1) | st.just(10**500),
        "lines": values | st.just([1, 2]),
        "protocolVersion": values,
        "palace": values,
        "session": st.just("s") | values,
        "secret": st.just("5" * 32) | values,
        "read_only": values,
        "age_s": values | st.sampled_from([10**500, float("nan"), float("inf")]),
        "epoch": values | st.just(10**500),
        "view": values | st.dictionaries(st.sampled_from(["boot", "mnt", "dev", "ino"]), values),
        "wire": st.just(1) | values,
    },
)
messages = st.fixed_dictionaries(
    {}, optional={"jsonrpc": st.just("2.0"), "id": ids, "method": methods | values, "params": named | values}
)
lines = (
    messages.map(json.dumps).map(str.encode)
    | st.lists(messages, max_size=4).map(json.dumps).map(str.encode)
    | st.binary(max_size=40)
)


def asked(line: bytes) -> int:
    """At most so many answers are due."""
    try:
        value: Any = json.loads(line)
    except ValueError:
        return 1
    return max(1, len(value)) if isinstance(value, list) else 1


@settings(max_examples=150, deadline=None)
@given(st.lists(lines, max_size=8), st.booleans())
def test_whatever_a_client_sends(sent: list[bytes], up: bool) -> None:
    talk = Talk(up=up)
    talk.opens(1, 2)
    for line in sent:
        talk.says(1, line)
    talk.says(2, call("mine", "mempalace_get_aaak_spec"))
    if not up:
        talk.engine_up()
    while talk.inside:
        talk.done(talk.inside[0], b'{"jsonrpc":"2.0","id":null,"result":{}}')
    answers = Counter(effect.conn for effect in talk.seen if isinstance(effect, fx.Send))
    assert answers[1] <= sum(map(asked, sent))
    assert answers[2] == 1
