"""Who may come in over HTTP, by the head of the request alone."""

from __future__ import annotations

import pytest

from mempalace_broker.broker.http.machine.gate import Admitted, Head, Refusal, Route, ViewAccess, judge
from mempalace_broker.broker.http.machine.page_access import PageAccess
from mempalace_broker.broker.machine.session import Origin

PORT = 21_000
COPIED, OWN = "c0" * 32, "d1" * 32
NOW = 1_795_000_000.0
PAGE = PageAccess(lambda: b"\x05" * 16)
PAGE.secret = OWN
KEYS = {COPIED: Origin.GUEST, OWN: Origin.USER}
METRICS = "e2" * 32
VERSIONS = ("2026-07-28", "2025-11-25", "2025-03-26")


def ask(method: str = "POST", target: str = "/mcp", **headers: str) -> Admitted | Refusal:
    given = {
        "host": f"127.0.0.1:{PORT}",
        "authorization": f"Bearer {COPIED}",
        "content-type": "application/json",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    encoded = {name.encode(): value.encode("latin-1") for name, value in given.items()}
    views = ViewAccess(METRICS, PAGE, NOW)
    return judge(Head(method, target, encoded), port=PORT, keys=KEYS, versions=VERSIONS, views=views)


def sees(cookie: str, key: str, target: str = "/page/status", method: str = "GET") -> Admitted | Refusal:
    return ask(method, target, authorization=f"Page {key}", cookie=f"x=1; mempalace-page-{PORT}={cookie}; y=2")


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
    assert refused(judge(head, port=PORT, keys={}, versions=VERSIONS, views=ViewAccess("", PAGE, NOW))) == 401


def test_what_else_is_refused() -> None:
    assert refused(ask(target="/nothing")) == 404
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


def test_the_metrics_are_for_their_token_and_the_users_programs() -> None:
    assert ask("GET", "/metrics", authorization=f"Bearer {METRICS}") == Admitted(Route.METRICS, METRICS)
    assert ask("GET", "/metrics?x=1", authorization=f"bearer {OWN}") == Admitted(Route.METRICS, OWN)
    assert refused(ask("GET", "/metrics", authorization=f"Bearer {COPIED}")) == 401, "a guest's token"
    assert refused(ask("GET", "/metrics", authorization=f"Basic {METRICS}")) == 401
    assert refused(ask("POST", "/metrics", authorization=f"Bearer {METRICS}")) == 405
    assert refused(ask(authorization=f"Bearer {METRICS}")) == 401, "it opens nothing else"
    assert refused(ask("GET", "/page/status", authorization=f"Bearer {METRICS}")) == 401


def test_where_nobody_asked_for_metrics_an_empty_token_opens_nothing() -> None:
    head = Head("GET", "/metrics", {b"host": b"localhost", b"authorization": b"Bearer "})
    assert refused(judge(head, port=PORT, keys=KEYS, versions=VERSIONS, views=ViewAccess("", PAGE, NOW))) == 401


def test_the_files_of_the_page_are_for_everybody() -> None:
    assert ask("GET", "/", authorization="") == Admitted(Route.PAGE_FILE, detail="/")
    assert ask("GET", "/page.js?v=1", authorization="") == Admitted(Route.PAGE_FILE, detail="/page.js")
    assert refused(ask("POST", "/")) == 405
    assert refused(ask("GET", "/", host="evil.example")) == 403
    assert refused(ask("GET", "/../page.js", authorization="")) == 404


def test_who_has_a_cookie_may_have_us_prove_ourselves() -> None:
    visit = PAGE.redeem(PAGE.new_code(NOW), NOW)
    assert visit is not None
    proof = PAGE.proof(visit.cookie, f"{PORT} 07", NOW)
    assert sees(visit.cookie, "", "/page/proof?07") == Admitted(Route.PAGE_PROOF, visit.cookie, detail=proof)
    assert refused(sees("", "", "/page/proof?07")) == 401
    assert refused(sees(visit.cookie, "", "/page/proof?07", "POST")) == 401


def test_the_page_shows_cookie_and_key() -> None:
    visit = PAGE.redeem(PAGE.new_code(NOW), NOW)
    assert visit is not None
    asked = sees(*visit, "/page/search?query=a")
    assert asked == Admitted(Route.PAGE_DATA, visit.cookie, detail="search?query=a")
    assert refused(sees(visit.cookie, "")) == 401
    assert refused(sees("", visit.key)) == 401
    assert refused(sees(*visit, method="POST")) == 405
    assert (
        refused(
            ask("GET", "/page/status", authorization=f"Bearer {COPIED}", cookie=f"mempalace-page-{PORT}={visit.cookie}")
        )
        == 401
    )
    assert (
        refused(
            ask("GET", "/page/status", authorization=f"Page {visit.key}", cookie=f"mempalace-page-1={visit.cookie}")
        )
        == 401
    )


def test_a_code_is_passed_on_and_only_to_the_login() -> None:
    assert ask("POST", "/page/login", authorization="Login abc") == Admitted(Route.PAGE_LOGIN, detail="abc")
    assert refused(ask("GET", "/page/login", authorization="Login abc")) == 405
    assert refused(ask("GET", "/page/status", authorization="Login abc")) == 401
    assert refused(ask("POST", "/page/login", authorization="Login abc", origin="https://evil.example")) == 403
