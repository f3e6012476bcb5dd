from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbox.tests.image.checkout import OTHER, SHA
from pi_devbox.image import answers
from pi_devbox.image.retry import LookupFailed

GARBAGE = [
    b"",
    b"<!DOCTYPE html><html>Sign in</html>",
    b"null",
    b"[]",
    b"{}",
    b'[{"sha": null}]',
    b'[{"sha": "main"}]',
    b'[{"id": "' + SHA.encode() + b'"}]',
    b'{"sha": "' + SHA.encode() + b'"}',
    b'[{"sha": "' + SHA.encode() + b'\\n"}]',
    b'[{"sha": "' + SHA[:-1].encode() + b'"}]',
    b'[{"sha": "' + SHA.upper().encode() + b'"}]',
    b'[{"sha": "' + b"0" * 40 + b'"}]',
    b"\xff\xfe\x00",
    b"[" * 100_000,
]


@pytest.mark.parametrize("read", [answers.gitea_commit, answers.github_commit, answers.npm_version])
@pytest.mark.parametrize("body", GARBAGE)
def test_garbage_is_a_failure(read: object, body: bytes) -> None:
    with pytest.raises(LookupFailed) as caught:
        read(body)  # type: ignore[operator]
    assert len(caught.value.reason) < 400
    assert caught.value.reason.isprintable()


@given(st.binary(max_size=200))
def test_no_bytes_are_too_strange(body: bytes) -> None:
    for read in (answers.gitea_commit, answers.github_commit, answers.npm_version, answers.registry_token):
        with pytest.raises(LookupFailed):
            read(body)
    with pytest.raises(LookupFailed):
        answers.ls_remote(body, "main")


def test_commits() -> None:
    listed = json.dumps([{"sha": SHA, "url": "x", "commit": {}}, {"sha": OTHER}]).encode()
    assert answers.gitea_commit(listed) == SHA
    assert answers.github_commit(f"{SHA}\n".encode()) == SHA
    assert answers.github_commit(b"a" * 64) == "a" * 64


@pytest.mark.parametrize(
    ("ref", "sha"),
    [(SHA, SHA), (SHA.upper(), SHA), ("b" * 64, "b" * 64), ("main", None), (SHA[:12], None), ("0" * 40, None)],
)
def test_a_commit_id_as_ref(ref: str, sha: str | None) -> None:
    assert answers.given_sha(ref) == sha


@pytest.mark.parametrize(
    ("lines", "ref", "sha"),
    [
        ({"refs/heads/main": SHA}, "main", SHA),
        ({"refs/heads/feature/main": OTHER, "refs/heads/main": SHA}, "main", SHA),
        ({"refs/heads/v1": OTHER, "refs/tags/v1": SHA}, "v1", SHA),  # as `git fetch` prefers
        ({"refs/tags/v1": OTHER, "refs/tags/v1^{}": SHA}, "v1", SHA),
        ({"refs/heads/main": SHA}, "heads/main", SHA),
        ({"refs/heads/main": SHA}, "refs/heads/main", SHA),
        ({"HEAD": SHA, "refs/heads/HEAD": OTHER}, "HEAD", SHA),
        ({"refs/heads/feature/main": OTHER}, "main", None),
        ({"refs/heads/main": "nonsense"}, "main", None),
        ({}, "main", None),
    ],
)
def test_ls_remote(lines: dict[str, str], ref: str, sha: str | None) -> None:
    output = "".join(f"{value}\t{name}\n" for name, value in lines.items()).encode()
    if sha is None:
        with pytest.raises(LookupFailed):
            answers.ls_remote(output, ref)
    else:
        assert answers.ls_remote(output, ref) == sha


def test_npm() -> None:
    assert answers.npm_version(b'"1.2.3-rc.1"\n') == "1.2.3-rc.1"
    assert answers.given_version("1.2.3") == "1.2.3"
    assert answers.given_version("latest") is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm="https://a.b/t",service="s",scope="x:y:pull"', ("https://a.b/t", "s", "x:y:pull")),
        ('bearer  realm="https://a.b/t?x=1"', ("https://a.b/t?x=1", "", "")),
        ('Basic realm="https://a.b"', None),
        ('Bearer realm="file:///etc/passwd"', None),
        ('Bearer realm="https://:x/"', None),
        ("Bearer", None),
        ("Bearer nonsense", None),
        ("", None),
    ],
)
def test_challenges(header: str, expected: tuple[str, str, str] | None) -> None:
    assert answers.challenge(header) == expected


@given(st.text())
def test_no_challenge_is_too_strange(header: str) -> None:
    answers.challenge(header)
    answers.challenge(f"Bearer {header}")


def test_tokens() -> None:
    assert answers.registry_token(b'{"token": "abc.def", "expires_in": 300}') == "abc.def"
    assert answers.registry_token(b'{"access_token": "abc"}') == "abc"
    with pytest.raises(LookupFailed) as caught:
        answers.registry_token(b'{"token": "secret\\r\\nX-Evil: 1"}')
    assert "secret" not in caught.value.reason
