"""Companions against scripted APIs, and where each token goes."""

from __future__ import annotations

import json
import time

import pytest

from devbox.tests.image.asking import QUICK, ask, project
from devbox.tests.image.checkout import OTHER, SHA
from devbox.tests.image.gitserver import GitServer, Repository
from devbox.tests.image.stub import Say, Stub
from pi_devbox.errors import ConfigError
from pi_devbox.image.asking import Pace
from pi_devbox.image.recipe import Companion
from pi_devbox.image.resolve import Access, gitea_url, github_url, token_for
from pi_devbox.image.retry import LookupFailed, Policy
from pi_devbox.image.web import LARGEST, Web, next_hop

API = "/api/v1/repos/me/kit/commits"
HUB = "/api/v3/repos/me/kit/commits/main"


def commits(sha: str) -> Say:
    return Say(200, json.dumps([{"sha": sha, "commit": {"message": "x"}}]).encode())


@pytest.mark.parametrize(
    ("kind", "path", "say"), [("gitea", API, commits(SHA)), ("github", HUB, Say(200, SHA.encode()))]
)
def test_apis_are_asked_with_their_token(kind: str, path: str, say: Say) -> None:
    with Stub({path: say}) as stub:
        found = ask(project(kind, f"{stub.url}/me/kit.git", token_host=stub.host), KIT_TOKEN="hush")
    assert (found.value, found.how) == (SHA, "api")
    [asked] = stub.asked
    assert asked.authorization == ("token hush" if kind == "gitea" else "Bearer hush")
    if kind == "github":
        assert asked.headers["accept"] == "application/vnd.github.sha"
    else:
        assert "sha=main" in asked.path


def test_a_token_is_for_its_host_only() -> None:
    with Stub({API: commits(SHA)}) as stub:
        found = ask(project("gitea", f"{stub.url}/me/kit.git", token_host="elsewhere.example.org"), KIT_TOKEN="hush")
    assert found.value == SHA
    assert stub.asked[0].authorization == ""


def test_a_token_does_not_follow_a_redirect() -> None:
    with Stub({"/moved": commits(OTHER)}) as other, Stub({}) as stub:
        stub.script[API] = [Say(302, headers={"Location": f"{other.url}/moved"})]
        found = ask(project("gitea", f"{stub.url}/me/kit.git", token_host=stub.host), KIT_TOKEN="hush")
        assert found.value == OTHER
        assert stub.asked[0].authorization == "token hush"
        assert other.asked[0].authorization == ""
        stub.script[API] = [Say(301, headers={"Location": "/again"})]
        stub.script["/again"] = [commits(SHA)]
        assert ask(project("gitea", f"{stub.url}/me/kit.git", token_host=stub.host), KIT_TOKEN="hush").value == SHA
        assert stub.asked[-1].authorization == ""


@pytest.mark.parametrize("location", ["http://a.example.org/x", "//[::1", "file:///x", "ftp://a.example.org/x", ""])
def test_redirects_that_are_not_followed(location: str) -> None:
    with pytest.raises(LookupFailed, match="a redirect to"):
        next_hop("https://a.example.org/y", location)


def test_a_redirect_loses_its_credentials() -> None:
    assert next_hop("https://a.example.org/y", "https://me:hush@b.example.org/x?y=1") == "https://b.example.org/x?y=1"
    assert next_hop("http://a.example.org/y", "https://a.example.org/z") == "https://a.example.org/z"


def test_the_runners_own_token_goes_to_the_runners_own_server_only() -> None:
    def token(server: str | None) -> str:
        env = {"GITHUB_TOKEN": "hush", **({"GITHUB_SERVER_URL": server} if server else {})}
        access = Access(Web(), env, {"github.com": "GITHUB_TOKEN"}, Pace(), time.time)
        return token_for("https://github.com/x/y", access)

    assert [token(None), token("https://github.com")] == ["hush", "hush"]
    assert token("https://gitea.example.org") == ""


def test_on_giteas_runner_the_runners_token_is_giteas() -> None:
    def token(url: str, **more: str) -> str:
        env = {"GITHUB_TOKEN": "runner", "GITHUB_SERVER_URL": "https://gitea.example.org", **more}
        tokens = {"github.com": "GITHUB_TOKEN", "gitea.example.org": "GITEA_TOKEN"}
        return token_for(url, Access(Web(), env, tokens, Pace(), time.time))

    assert token("https://gitea.example.org/x/y") == "runner"
    assert token("https://gitea.example.org/x/y", GITEA_TOKEN="mine") == "mine"
    assert token("https://github.com/x/y") == token("https://elsewhere.example.org/x/y") == ""


def test_a_token_is_not_sent_in_the_clear() -> None:
    what = project("gitea", "http://192.0.2.1/me/kit.git", token_host="192.0.2.1")
    found = ask(what, Policy(attempts=1, each=0.3, total=1), KIT_TOKEN="hush")
    assert "over https only" in found.note
    assert "hush" not in found.note


@pytest.mark.parametrize("token", ["a\nX-Evil: 1", "two words", "ä"])
def test_a_token_that_can_not_be_sent_is_an_error_that_does_not_show_it(token: str) -> None:
    with pytest.raises(ConfigError, match="KIT_TOKEN") as caught:
        ask(project("gitea", "https://git.example.org/me/kit.git", token_host="git.example.org"), KIT_TOKEN=token)
    assert token not in str(caught.value)


def test_addresses_of_apis() -> None:
    def companion(kind: str, url: str, ref: str = "main") -> Companion:
        return project(kind, url, ref).companion[0]

    assert (
        github_url(companion("github", "https://github.com/o/r.git")) == "https://api.github.com/repos/o/r/commits/main"
    )
    assert github_url(companion("github", "https://ghe.example.org/o/r", "a/b")).endswith(
        "/api/v3/repos/o/r/commits/a/b"
    )
    assert gitea_url(companion("gitea", "https://g.example.org:3000/pre/o/r.git", "a/b")) == (
        "https://g.example.org:3000/pre/api/v1/repos/o/r/commits"
        "?limit=1&stat=false&verification=false&files=false&sha=a%2Fb"
    )


GARBAGE = {
    "html": Say(200, b"<html>Sign in</html>"),
    "other json": Say(200, b'{"sha": 1}'),
    "no commits": Say(200, b"[]"),
    "no id": commits("main"),
    "short id": commits(SHA[:-1]),
    "empty": Say(200),
    "no such page": Say(404),
    "conflict": Say(409),
    "endless": Say(200, fault="endless"),
    "huge": Say(200, b"[" + b" " * (LARGEST + 1) + b"]"),
    "loop": Say(302, headers={"Location": API}),
    "redirect to a file": Say(302, headers={"Location": "file:///etc/passwd"}),
    "redirect to nowhere": Say(302),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_not_asked_for_again_and_keeps_the_name(name: str) -> None:
    with Stub({API: GARBAGE[name]}) as stub:
        found = ask(project("gitea", f"{stub.url}/me/kit.git"))
    assert (found.value, found.how) == ("main", "name")
    assert found.note.startswith("api: ")
    assert found.note.isprintable()
    assert "git: " in found.note
    assert sum(asked.path.startswith(API) for asked in stub.asked) == (4 if name == "loop" else 1)


TRANSIENT = {
    "error": Say(500),
    "unavailable": Say(503, headers={"Retry-After": "0"}),
    "reset": Say(fault="reset"),
    "redirect to nonsense": Say(302, headers={"Location": "http://[::1"}),
    "too many": Say(429),
    "rate limit": Say(403, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}),
}


@pytest.mark.parametrize("name", TRANSIENT)
def test_what_passes_is_asked_again(name: str) -> None:
    with Stub({API: [TRANSIENT[name], TRANSIENT[name], commits(SHA)]}) as stub:
        found = ask(project("gitea", f"{stub.url}/me/kit.git"))
    assert (found.value, found.how, len(stub.asked)) == (SHA, "api", 3)


@pytest.mark.parametrize("name", TRANSIENT)
def test_what_does_not_pass_is_asked_a_bounded_number_of_times(name: str) -> None:
    with Stub({API: TRANSIENT[name]}) as stub:
        found = ask(project("gitea", f"{stub.url}/me/kit.git"))
    assert found.how == "name"
    assert "asked 3 times" in found.note
    assert sum(asked.path.startswith(API) for asked in stub.asked) == QUICK.attempts


def test_a_server_that_asks_for_too_much_patience_is_not_asked_again() -> None:
    slow = Say(429, headers={"Retry-After": "3600"})
    with Stub({API: slow}) as stub:
        found = ask(project("gitea", f"{stub.url}/me/kit.git"))
    assert "rate limit for another 3600 s" in found.note
    assert sum(asked.path.startswith(API) for asked in stub.asked) == 1


def test_a_wait_that_was_asked_for_is_kept() -> None:
    slow = Say(429, headers={"Retry-After": "1"})
    with Stub({API: [slow, commits(SHA)]}) as stub:
        started = time.monotonic()
        assert ask(project("gitea", f"{stub.url}/me/kit.git"), Policy(first=0.01, longest=2)).value == SHA
        assert time.monotonic() - started >= 1


def test_an_api_that_hangs() -> None:
    with Stub({API: Say(fault="hang")}) as stub:
        started = time.monotonic()
        found = ask(project("gitea", f"{stub.url}/me/kit.git"), Policy(attempts=2, first=0.01, each=0.2, total=2))
        assert time.monotonic() - started < 4
    assert found.how == "name"


def test_where_the_api_is_down_git_answers(server: GitServer, kit: Repository) -> None:
    """The git server has no API: every API request fails."""
    found = ask(project("gitea", f"{server.url}/me/kit.git"))
    assert (found.value, found.how) == (kit.id_of("main"), "git")
    assert found.note.startswith("api: HTTP")


def test_a_server_that_is_not_there() -> None:
    with Stub({}) as gone:
        url = gone.url
    found = ask(project("gitea", f"{url}/me/kit.git"))
    assert found.how == "name"
    assert "ConnectError" in found.note
