"""Parse the answers of APIs, git, npm and registries. Anything unexpected is LookupFailed, never a value."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import msgspec

from .retry import LookupFailed

_SHA = re.compile(r"(?!0+\Z)([0-9a-f]{40}|[0-9a-f]{64})")  # SHA-1 or SHA-256, and not the null id
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?")
_TOKEN = re.compile(r"[\x21-\x7e]{1,16000}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class _Commit(msgspec.Struct):
    sha: str


class _Token(msgspec.Struct):
    token: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    access_token: Annotated[str, msgspec.Meta(min_length=1)] | None = None


class _Tags(msgspec.Struct):
    Tags: list[Annotated[str, msgspec.Meta(max_length=128)]] | None = None
    tags: list[Annotated[str, msgspec.Meta(max_length=128)]] | None = None


class Challenge(NamedTuple):
    """Where a registry sends clients for a token."""

    realm: str
    service: str
    scope: str


def given_sha(ref: str) -> str | None:
    """Return `ref` in lower case if it is a commit id, else None."""
    return ref.lower() if _SHA.fullmatch(ref.lower()) else None


def given_version(ref: str) -> str | None:
    """Return `ref` if it is an exact version, else None."""
    return ref if _VERSION.fullmatch(ref) else None


def github_commit(body: bytes) -> str:
    """Read the commit id from GitHub's media type "sha", which is nothing but 40 digits."""
    return _sha(body.decode("ascii", "replace").strip())


def gitea_commit(body: bytes) -> str:
    """Read the first commit id from Gitea's list of commits."""
    try:
        commits = msgspec.json.decode(body, type=list[_Commit])
    except ValueError as exc:  # msgspec's errors, and text that is not UTF-8
        raise LookupFailed(f"an answer that is not a list of commits: {_shown(body)}") from exc
    if not commits:
        raise LookupFailed("no commits at this ref")
    return _sha(commits[0].sha)


def ls_remote(output: bytes, ref: str) -> str:
    """Find the commit id of `ref` in the output of `git ls-remote`, as `git fetch` does; peel an annotated tag."""
    found: dict[str, str] = {}
    for line in output.decode("utf-8", "replace").splitlines():
        sha, tab, name = line.partition("\t")
        if not tab:
            raise LookupFailed(f"git ls-remote printed {_shown(line.encode())}")
        found[name] = sha
    for name in candidates(ref):
        if name in found:
            return _sha(found.get(f"{name}^{{}}", found[name]))
    raise LookupFailed(f"no branch or tag named {ref}")


def candidates(ref: str) -> list[str]:
    """List the full names that `ref` may stand for, in git's order of preference (gitrevisions)."""
    if ref == "HEAD" or ref.startswith("refs/"):
        return [ref]
    return [f"refs/{ref}", f"refs/tags/{ref}", f"refs/heads/{ref}"]


def npm_version(output: bytes) -> str:
    """Read the version from the output of `npm view PACKAGE version --json`."""
    try:
        version = msgspec.json.decode(output, type=str)
    except ValueError as exc:
        raise LookupFailed(f"npm view printed {_shown(output)}") from exc
    if not _VERSION.fullmatch(version):
        raise LookupFailed(f"npm view printed {_shown(output)}")
    return version


def registry_token(body: bytes) -> str:
    """Read the bearer token from a token server's answer; an error never shows the body."""
    try:
        answer = msgspec.json.decode(body, type=_Token)
    except ValueError as exc:
        raise LookupFailed("the token server's answer is not JSON with a token") from exc
    token = answer.token or answer.access_token or ""
    if not _TOKEN.fullmatch(token):
        raise LookupFailed("the token server's answer has no usable token")
    return token


def tags(body: bytes) -> list[str]:
    """Read a list of tags, as a registry's `tags/list` or `skopeo list-tags` gives it."""
    try:
        found = msgspec.json.decode(body, type=_Tags)
    except ValueError as exc:
        raise LookupFailed(f"not a list of tags: {_shown(body)}") from exc
    listed = found.Tags if found.Tags is not None else found.tags
    if listed is None:
        raise LookupFailed(f"no tags in the list of tags: {_shown(body)}")
    return listed


def challenge(header: str) -> Challenge | None:
    """Parse a Bearer challenge of WWW-Authenticate; return None for another scheme, or nonsense."""
    scheme, _, rest = header.strip().partition(" ")
    try:
        fields = {key.lower(): value for key, value in parse_keqv_list(parse_http_list(rest)).items()}
        realm = urlsplit(fields.get("realm", ""))
        realm.port  # noqa: B018 - raises if it is not a number
    except (ValueError, IndexError):
        return None
    if scheme.lower() != "bearer" or realm.scheme not in {"https", "http"} or not realm.hostname:
        return None
    return Challenge(fields["realm"], fields.get("service", ""), fields.get("scope", ""))


def manifest_digest(header: str) -> str:
    """Return a registry's Docker-Content-Digest, or "" if it is not valid."""
    return header if _DIGEST.fullmatch(header) else ""


def _sha(text: str) -> str:
    if not _SHA.fullmatch(text):
        raise LookupFailed(f"an answer that is not a commit id: {_shown(text.encode())}")
    return text


def _shown(body: bytes) -> str:
    """The beginning of an answer, for one line of a log."""
    text = body[:60].decode("utf-8", "replace")
    return repr(text) + ("..." if len(body) > 60 else "")
