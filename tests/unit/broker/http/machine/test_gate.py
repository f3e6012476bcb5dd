"""Who may come in over HTTP, by the head of the request alone."""

from __future__ import annotations

import pytest

from mempalace_broker.broker.http.machine.gate import Admitted, Head, Refusal, Route, judge
from mempalace_broker.broker.machine.session import Origin

PORT = 21_000
COPIED, OWN = "c0" * 32, "d1" * 32
KEYS = {COPIED: Origin.GUEST, OWN: Origin.USER}
VERSIONS = ("2026-07-28", "2025-11-25", "2025-03-26")


def ask(method: str = "POST", target: str = "/mcp", **headers: str) -> Admitted | Refusal:
    given = {
        "host": f"127.0.0.1:{PORT}",
        "authorization": f"Bearer {COPIED}",
        "content-type": "application/json",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    encoded = {name.encode(): value.encode("latin-1") for name, value in given.items()}
    return judge(Head(method, target, encoded), port=PORT, keys=KEYS, versions=VERSIONS)


def refused(verdict: Admitted | Refusal) -> int:
    assert isinstance(verdict, Refusal)
    return verdict.status


def test_what_mempalaces_own_clients_send_is_enough() -> None:
    verdict = ask(authorization=f"Bearer {OWN}", host="127.0.0.1", user_agent="Python-urllib/3.11")
    assert verdict == Admitted(Route.POST, OWN, Origin.USER)


def test_what_an_sdk_sends() -> None:
    verdict = ask(
        accept="application/json, text/event-stream",
        content_type="application/json; charset=utf-8",
        mcp_session_id="abc",
        mcp_protocol_version="2025-11-25",
    )
    assert verdict == Admitted(Route.POST, COPIED, Origin.GUEST, "abc", "2025-11-25", streams=True)
    assert ask("GET", last_event_id="9.1") == Admitted(Route.GET, COPIED, Origin.GUEST, last_event="9.1")
    assert ask("DELETE", "/mcp?x=1", mcp_session_id="s") == Admitted(Route.DELETE, COPIED, Origin.GUEST, "s")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", f"127.0.0.1:{PORT}", f"LocalHost:{PORT}", f"[::1]:{PORT}"]
)
def test_names_of_this_machine(host: str) -> None:
    assert isinstance(ask(host=host), Admitted)


@pytest.mark.parametrize(
    "host", ["", "evil.example", f"evil.example:{PORT}", f"127.0.0.1:{PORT + 1}", f"127.0.0.1.evil.example:{PORT}", "0"]
)
def test_a_page_that_was_led_here_names_its_own_server(host: str) -> None:
    assert refused(ask(host=host)) == 403
    assert refused(ask("GET", "/healthz", host=host)) == 403


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8"])
def test_pages_of_this_machine(origin: str) -> None:
    assert isinstance(ask(origin=origin), Admitted)


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost.evil.example", "http://evil.example:80", "file://", "//"],
)
def test_pages_of_others(origin: str) -> None:
    assert refused(ask(origin=origin)) == 403


@pytest.mark.parametrize(
    "shown", ["", "Bearer", f"Bearer {COPIED[:-1]}", f"Bearer {COPIED}0", f"Basic {COPIED}", COPIED, "Bearer \xff\xfe"]
)
def test_without_the_token_nothing_but_health(shown: str) -> None:
    verdict = ask(authorization=shown)
    assert refused(verdict) == 401
    assert isinstance(verdict, Refusal)
    assert verdict.header is not None
    assert COPIED not in verdict.text
    assert ask("GET", "/healthz", authorization=shown) == Admitted(Route.HEALTH)


def test_a_listener_without_tokens_lets_nobody_in() -> None:
    head = Head("POST", "/mcp", {b"host": b"localhost", b"authorization": b"Bearer "})
    assert refused(judge(head, port=PORT, keys={}, versions=VERSIONS)) == 401


def test_what_else_is_refused() -> None:
    assert refused(ask(target="/")) == 404
    assert refused(ask("PUT")) == 405
    assert refused(ask("OPTIONS")) == 405
    assert refused(ask("POST", "/healthz")) == 405
    assert refused(ask(content_type="text/plain")) == 415  # all that a page can send to another origin unasked
    assert refused(ask(mcp_protocol_version="1999-01-01")) == 400


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", "/health"), ("GET", "/jobs?limit=2"), ("POST", "/jobs"), ("GET", "/jobs/1d"), ("POST", "/shutdown")],
)
def test_the_job_api_is_for_the_users_own_programs(method: str, target: str) -> None:
    own = {"authorization": f"Bearer {OWN}"}
    assert ask(method, target, **own) == Admitted(Route.JOBS, OWN, Origin.USER, method=method, target=target)
    assert refused(ask(method, target)) == 403
    assert refused(ask(method, target, authorization="Bearer no")) == 401
    assert refused(ask(method, target, host="evil.example", **own)) == 403
    assert refused(ask(method, target, origin="https://evil.example", **own)) == 403


@pytest.mark.parametrize(
    ("method", "target"), [("POST", "/health"), ("GET", "/shutdown"), ("POST", "/jobs/1d"), ("DELETE", "/jobs")]
)
def test_methods_of_the_job_api(method: str, target: str) -> None:
    assert refused(ask(method, target, authorization=f"Bearer {OWN}")) == 405
