from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.errors import UsageError
from mempalace_broker.route.endpoint import SSH, TCP, UNIX, Endpoint, parse

HOME = "/home/me"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("unix:/run/b.sock", Endpoint(UNIX, path="/run/b.sock")),
        ("unix:///run/b.sock", Endpoint(UNIX, path="/run/b.sock")),
        ("/run/b.sock", Endpoint(UNIX, path="/run/b.sock")),
        ("~/b.sock", Endpoint(UNIX, path="/home/me/b.sock")),
        ("tcp://127.0.0.1:7001", Endpoint(TCP, host="127.0.0.1", port=7001)),
        ("tcp://[::1]:7001", Endpoint(TCP, host="::1", port=7001)),
        ("tcp://host.docker.internal:1", Endpoint(TCP, host="host.docker.internal", port=1)),
        ("ssh://host", Endpoint(SSH, host="host")),
        ("ssh://host/", Endpoint(SSH, host="host")),
        ("ssh://me@host:2222", Endpoint(SSH, host="host", port=2222, user="me")),
        ("ssh://host/srv/mem", Endpoint(SSH, host="host", path="/srv/mem")),
        ("ssh://me@[fe80::1]:22/srv/mem", Endpoint(SSH, host="fe80::1", port=22, user="me", path="/srv/mem")),
        ("ssh://host/~/mem", Endpoint(SSH, host="host", path="~/mem")),
    ],
)
def test_what_is_understood(text: str, want: Endpoint) -> None:
    assert parse(text, HOME) == want
    assert parse(str(want), HOME) == want


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix:",
        "unix://relative/x",
        "http://host:80",
        "tcp://host",
        "tcp://:80",
        "tcp://host:0",
        "tcp://host:65536",
        "tcp://host:8x",
        "tcp://host:80/path",
        "tcp://me@host:80",
        "tcp:host:80",
        "tcp://::1:80",
        "tcp://[::1:80",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://-l@host",
        "ssh://@host",
        "ssh://ho st",
        "ssh://host;reboot",
        "ssh://$(id)",
        "unix:/" + "x" * 107,
        "~\0",
    ],
)
def test_what_is_refused_names_the_text_and_the_right_form(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text, HOME)
    assert repr(text) in error.value.message
    assert error.value.hint


@given(st.text(max_size=40))
def test_anything_else_is_an_endpoint_or_a_usage_error(text: str) -> None:
    try:
        found = parse(text, HOME)
    except UsageError:
        return
    assert parse(str(found), HOME) == found
