"""Companions against a real git server over HTTP, and npm."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from devbox.tests.image.asking import ask, project
from devbox.tests.image.checkout import SHA
from devbox.tests.image.gitserver import GitServer, Repository, git
from devbox.tests.image.stub import Say, Stub
from pi_devbox.image import answers
from pi_devbox.image.asking import Pace
from pi_devbox.image.resolve import Access, git_environment
from pi_devbox.image.retry import Policy
from pi_devbox.image.web import Web

# --- git ls-remote


def test_a_branch_and_its_moves(server: GitServer, kit: Repository) -> None:
    what = project("git", f"{server.url}/me/kit.git")
    found = ask(what)
    assert (found.value, found.how, found.fixed, found.note) == (kit.id_of("main"), "git", True, "")
    second = kit.commit("second")
    assert ask(what).value == second
    rewritten = kit.commit("rewritten", onto=None)
    assert git(kit.folder, "rev-list", "--count", "main") == "1"
    assert ask(what).value == rewritten
    kit.commit("a namesake", branch="feature/main")
    assert ask(what).value == rewritten


def test_tags_are_peeled_and_preferred_as_git_fetch_does(server: GitServer, kit: Repository, tmp_path: Path) -> None:
    first = kit.id_of("main")
    git(kit.folder, "tag", "light", first)
    git(kit.folder, "-c", "user.name=a", "-c", "user.email=a@b", "tag", "-a", "-m", "x", "heavy", first)
    git(kit.folder, "update-ref", "refs/heads/light", kit.commit("second"))
    assert git(kit.folder, "rev-parse", "heavy") != first
    url = f"{server.url}/me/kit.git"
    assert [ask(project("git", url, ref)).value for ref in ("light", "heavy")] == [first, first]
    git(tmp_path, "init", "-q", "clone")
    git(tmp_path / "clone", "fetch", "-q", "--depth=1", url, "light")
    assert git(tmp_path / "clone", "rev-parse", "FETCH_HEAD") == first


def test_repositories_with_sha256_ids(server: GitServer) -> None:
    kit = Repository(server.folder / "me" / "kit.git", "--object-format=sha256")
    found = ask(project("git", f"{server.url}/me/kit.git"))
    assert found.value == kit.id_of("main")
    assert len(found.value) == 64


@pytest.mark.parametrize(
    ("path", "ref", "complaint"),
    [("me/kit.git", "gone", "no branch or tag named gone"), ("me/gone.git", "main", "not found")],
)
def test_what_is_not_there_keeps_its_name(
    server: GitServer, kit: Repository, path: str, ref: str, complaint: str
) -> None:
    found = ask(project("git", f"{server.url}/{path}", ref))
    assert (found.value, found.how, found.fixed) == (ref, "name", False)
    assert complaint in found.note


def test_a_commit_id_is_passed_through_without_asking(server: GitServer, kit: Repository) -> None:
    for ref in (SHA, SHA.upper()):
        found = ask(project("git", f"{server.url}/me/kit.git", ref))
        assert (found.value, found.how) == (SHA, "given")
    assert server.asked == []


def test_a_git_that_hangs_is_ended_with_all_it_started() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with Stub({"/me/kit.git/info/refs": Say(fault="hang")}) as stub:
        started = time.monotonic()
        found = ask(project("git", f"{stub.url}/me/kit.git"), Policy(attempts=2, first=0.01, each=0.4, total=5))
        assert time.monotonic() - started < 4
        assert found.how == "name"
        assert "no answer within" in found.note
        assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_git_asks_nobody() -> None:
    refusal = Say(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    with Stub({"/me/kit.git/info/refs": refusal}) as stub:
        found = ask(project("git", f"{stub.url}/me/kit.git"), KIT_TOKEN="hush")
    assert found.how == "name"
    assert "terminal prompts disabled" in found.note or "could not read" in found.note
    assert all(not asked.authorization for asked in stub.asked)


def test_git_gets_no_token_in_its_environment() -> None:
    access = Access(
        Web(), {"KIT_TOKEN": "hush", "REGISTRY_TOKEN": "hush", "PATH": "/bin"}, {"h": "KIT_TOKEN"}, Pace(), time.time
    )
    env = git_environment(access)
    assert "hush" not in env.values()
    assert (env["GIT_TERMINAL_PROMPT"], env["PATH"]) == ("0", "/bin")


# --- npm


def _npm(folder: Path, script: str) -> str:
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / "npm").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("script", "value", "how"),
    [
        ("""[ "$2" = "@me/kit@latest" ] && echo '"1.2.3"'""", "1.2.3", "npm"),
        ("""echo '["1.2.3"]'""", "latest", "name"),
        ("echo 'npm error 404 not found' >&2; exit 1", "latest", "name"),
    ],
)
def test_npm(tmp_path: Path, script: str, value: str, how: str) -> None:
    found = ask(project("npm", "@me/kit", "latest"), PATH=_npm(tmp_path / "bin", script))
    assert (found.value, found.how) == (value, how)


def test_a_version_is_passed_through(tmp_path: Path) -> None:
    assert ask(project("npm", "@me/kit", "1.2.3"), PATH=str(tmp_path)).how == "given"
    found = ask(project("npm", "@me/kit", "latest"), PATH=str(tmp_path))
    assert "npm can't be run" in found.note


def test_candidates_are_gits_own() -> None:
    assert answers.candidates("v1") == ["refs/v1", "refs/tags/v1", "refs/heads/v1"]
