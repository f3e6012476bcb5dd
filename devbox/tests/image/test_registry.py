"""Facts from a scripted registry, including its token server."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path

import pytest

from devbox.tests.image.stub import Say, Stub
from pi_devbox.errors import ConfigError
from pi_devbox.image.address import split_name
from pi_devbox.image.asking import Pace
from pi_devbox.image.model import TagFact
from pi_devbox.image.registry import facts_from, list_tags, look_up, may_know
from pi_devbox.image.resolve import Access
from pi_devbox.image.retry import LookupFailed, Policy
from pi_devbox.image.session import read_tags
from pi_devbox.image.web import Web

QUICK = Policy(attempts=2, first=0.01, longest=0.1, each=3.0, total=10.0)
PATH = "/v2/me/box/manifests/base-1"
INDEX = {"Content-Type": "application/vnd.oci.image.index.v1+json", "Docker-Content-Digest": "sha256:" + "a" * 64}
MINE = {"REGISTRY_USER": "me", "REGISTRY_TOKEN": "hush"}
BASIC = "Basic " + base64.b64encode(b"me:hush").decode()


async def _ask(image: str, env: dict[str, str]) -> dict[str, TagFact]:
    async with Web() as web:
        return await look_up(image, ["base-1"], Access(web, env, {}, Pace(QUICK), time.time))


def ask(stub: Stub, **env: str) -> TagFact:
    return asyncio.run(_ask(f"{stub.host}/me/box", env))["base-1"]


@pytest.mark.parametrize(
    ("say", "state"),
    [
        (Say(200, headers=INDEX), "present"),
        (Say(200, headers={"Content-Type": "application/vnd.docker.distribution.manifest.v2+json"}), "present"),
        (Say(404), "absent"),
        (Say(200, headers={"Content-Type": "text/html"}), "unknown"),
        (Say(200), "unknown"),
        (Say(204), "unknown"),
        (Say(403), "unknown"),
        (Say(500), "unknown"),
        (Say(401), "unknown"),
        (Say(401, headers={"WWW-Authenticate": 'Bearer realm="file:///x"'}), "unknown"),
        (Say(429, headers={"Retry-After": "9999"}), "unknown"),
        (Say(fault="reset"), "unknown"),
        (Say(302, headers={"Location": "http://[::1"}), "unknown"),
    ],
)
def test_facts(say: Say, state: str) -> None:
    with Stub({PATH: say}) as stub:
        fact = ask(stub)
    assert fact.state == state
    assert stub.asked[0].method == "HEAD"
    assert "oci.image.index" in stub.asked[0].headers["accept"]
    assert fact.note or state == "absent" or "Digest" not in str(say.headers)


def test_a_registry_that_stumbles_is_asked_again() -> None:
    with Stub({PATH: [Say(503), Say(200, headers=INDEX)]}) as stub:
        assert ask(stub).state == "present"


@pytest.mark.parametrize("env", [{}, MINE])
def test_the_token_dance(env: dict[str, str]) -> None:
    with Stub({"/token": Say(200, b'{"token": "t0k"}')}) as stub:
        wanted = f'Bearer realm="{stub.url}/token",service="reg",scope="repository:me/box:pull"'
        stub.script[PATH] = [Say(401, headers={"WWW-Authenticate": wanted}), Say(200, headers=INDEX)]
        assert ask(stub, **env).state == "present"
    head, token, again = stub.asked
    assert (head.authorization, again.authorization) == ("", "Bearer t0k")
    assert token.path == "/token?service=reg&scope=repository%3Ame%2Fbox%3Apull"
    assert token.authorization == (BASIC if env else "")


def test_basic() -> None:
    refusal = Say(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    with Stub({PATH: [refusal, Say(200, headers=INDEX)]}) as stub:
        assert ask(stub, **MINE).state == "present"
        assert stub.asked[1].authorization == BASIC
        stub.script[PATH] = [refusal]
        assert ask(stub) == TagFact("unknown", "HTTP 401; no $REGISTRY_USER and $REGISTRY_TOKEN")


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b'{"token": 7}', b'{"token": ""}'])
def test_a_token_server_that_talks_nonsense(body: bytes) -> None:
    with Stub({"/token": Say(200, body)}) as stub:
        stub.script[PATH] = [Say(401, headers={"WWW-Authenticate": f'Bearer realm="{stub.url}/token"'})]
        assert ask(stub).state == "unknown"


def test_credentials_that_can_not_be_sent() -> None:
    with Stub({}) as stub, pytest.raises(ConfigError, match="REGISTRY_TOKEN"):
        ask(stub, REGISTRY_USER="me", REGISTRY_TOKEN="a\nb")


@pytest.mark.parametrize(
    ("host", "realm", "may"),
    [
        ("registry-1.docker.io", "https://auth.docker.io/token", True),
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("ghcr.io", "https://ghcr.io/token", True),
        ("ghcr.io", "https://evil.io/token", False),
        ("registry.example.org", "https://evil-example.org/token", False),
        ("registry.example.org", "https://example.org.evil.net/", False),
        ("127.0.0.1", "http://127.0.0.1:9/", True),
        ("127.0.0.1", "http://8.0.0.1/", False),
    ],
)
def test_who_may_know_the_credentials(host: str, realm: str, may: bool) -> None:
    assert may_know(host, realm) == may


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("me/box", ("https://registry-1.docker.io", "me/box")),
        ("docker.io/me/box", ("https://registry-1.docker.io", "me/box")),
        ("docker.io/box", ("https://registry-1.docker.io", "library/box")),
        ("ghcr.io/me/box", ("https://ghcr.io", "me/box")),
        ("git.example.org:3000/me/box", ("https://git.example.org:3000", "me/box")),
        ("localhost/box", ("http://localhost", "box")),
        ("127.0.0.1:5000/a/b/c", ("http://127.0.0.1:5000", "a/b/c")),
    ],
)
def test_names_of_images(image: str, expected: tuple[str, str]) -> None:
    assert split_name(image) == expected


async def _list(image: str) -> list[str]:
    async with Web() as web:
        return await list_tags(image, Access(web, {}, {}, Pace(QUICK), time.time))


def listed(stub: Stub) -> list[str]:
    return asyncio.run(_list(f"{stub.host}/me/box"))


def test_all_pages_of_the_list_of_tags() -> None:
    path = "/v2/me/box/tags/list"
    pages = [
        Say(200, b'{"name": "x", "tags": ["v1", "v2"]}', headers={"Link": f'<{path}?last=v2&n=2>; rel="next"'}),
        Say(503),
        Say(200, b'{"name": "x", "tags": ["v3"]}'),
    ]
    with Stub({path: pages}) as stub:
        assert listed(stub) == ["v1", "v2", "v3"]
        assert [one.path for one in stub.asked] == [f"{path}?n=1000", *[f"{path}?last=v2&n=2"] * 2]
        stub.script[path] = [Say(404)]
        assert listed(stub) == [], "it was never pushed"
        for elsewhere in (f"http://127.0.0.1:1{path}", path):
            stub.script[path] = [Say(200, b'{"tags": []}', headers={"Link": f'<{elsewhere}>; rel="next"'})]
            with pytest.raises(LookupFailed, match="without an end"):
                listed(stub)


def test_facts_from_a_list() -> None:
    facts = facts_from(["base-1", "latest"], ["base-1", "base-2"])
    assert {tag: fact.state for tag, fact in facts.items()} == {"base-1": "present", "base-2": "absent"}


@pytest.mark.parametrize("key", ["Tags", "tags"])
def test_a_file_of_tags(key: str, tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(f'{{"Repository": "x", "{key}": ["base-1", "latest"]}}')
    assert read_tags(path) == ["base-1", "latest"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Tags": null}', '{"Tags": [1]}'])
def test_a_file_of_something_else(text: str, tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"facts\.json.*skopeo list-tags"):
        read_tags(path)
