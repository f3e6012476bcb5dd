"""Ask a registry which tags it has: HEAD of a manifest (OCI distribution specification 1.1, section 3.1)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode, urlsplit

import msgspec

from ..errors import ConfigError
from . import answers
from .address import is_loopback, split_name
from .asking import persist
from .model import TagFact
from .resolve import Access
from .retry import LookupFailed, refused
from .web import Reply, secret

USER, TOKEN = "REGISTRY_USER", "REGISTRY_TOKEN"
_ACCEPT = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)


class _Tags(msgspec.Struct):
    Tags: list[Annotated[str, msgspec.Meta(max_length=128)]] | None = None
    tags: list[Annotated[str, msgspec.Meta(max_length=128)]] | None = None


async def look_up(image: str, tags: Sequence[str], access: Access) -> dict[str, TagFact]:
    """Look up each tag. One without an answer is "unknown". Raise ConfigError for a malformed token only."""
    basic(access)
    async with asyncio.TaskGroup() as group:
        tasks = {tag: group.create_task(_look_up_one(image, tag, access)) for tag in tags}
    return {tag: task.result() for tag, task in tasks.items()}


def facts_from(text: bytes, tags: Sequence[str], where: str) -> dict[str, TagFact]:
    """The same from a list of all tags, the output of `skopeo list-tags` or a registry's `tags/list`."""
    try:
        found = msgspec.json.decode(text, type=_Tags)
    except ValueError as exc:
        raise ConfigError(f"{where} is not a list of tags: {exc}.", hint="write it with `skopeo list-tags`") from exc
    listed = found.Tags if found.Tags is not None else found.tags
    if listed is None:
        raise ConfigError(f'{where} has no "Tags".', hint="write it with `skopeo list-tags`")
    return {tag: TagFact("present" if tag in listed else "absent") for tag in tags}


async def _look_up_one(image: str, tag: str, access: Access) -> TagFact:
    try:
        return await persist(lambda: _ask(image, tag, access), access.pace, access.pace.policy.total)
    except LookupFailed as exc:
        return TagFact("unknown", exc.reason)


async def _ask(image: str, tag: str, access: Access) -> TagFact:
    base, repository = split_name(image)
    url = f"{base}/v2/{repository}/manifests/{tag}"
    reply = await access.web.ask("HEAD", url, accept=_ACCEPT)
    if reply.status == 401:
        authorization = await _authorization(base, repository, reply, access)
        reply = await access.web.ask("HEAD", url, accept=_ACCEPT, authorization=authorization)
    if reply.status == 404:
        return TagFact("absent")
    kind = reply.headers.get("content-type", "")
    if reply.status == 200 and "manifest" not in kind and "index" not in kind:
        raise LookupFailed(f"{base} does not answer like a registry ({kind or 'no content type'})")
    if reply.status != 200:
        raise refused(reply.status, reply.headers, access.now())
    return TagFact("present", answers.manifest_digest(reply.headers.get("docker-content-digest", "")))


async def _authorization(base: str, repository: str, refusal: Reply, access: Access) -> str:
    """The Authorization header after a 401: Basic for the registry itself, or a token from the server it names."""
    header = refusal.headers.get("www-authenticate", "")
    mine = basic(access)
    if header.lower().startswith("basic") and mine:
        return mine
    wanted = answers.challenge(header)
    if wanted is None:
        raise LookupFailed("HTTP 401" + ("" if mine else f"; no ${USER} and ${TOKEN}"))
    scope = wanted.scope or f"repository:{repository}:pull"
    joint = "&" if urlsplit(wanted.realm).query else "?"
    url = wanted.realm + joint + urlencode({"service": wanted.service, "scope": scope})
    known = mine if may_know(urlsplit(base).hostname or "", wanted.realm) else ""
    reply = await access.web.ask("GET", url, accept="application/json", authorization=known)
    if reply.status != 200:
        raise refused(reply.status, reply.headers, access.now())
    return f"Bearer {answers.registry_token(reply.body)}"


def may_know(host: str, realm: str) -> bool:
    """Whether the token server at `realm` may get the registry's credentials: only on the same host, or in its domain.

    This only contains a registry's mistakes: a hostile one could ask for the credentials itself. Whoever sets them must
    make sure that they belong to the registry in the image's name (docs/devbox.md).
    """
    other = urlsplit(realm).hostname or ""
    _, _, domain = host.partition(".")
    return other == host or (
        "." in domain and not is_loopback(host) and (other == domain or other.endswith("." + domain))
    )


def basic(access: Access) -> str:
    """Return Basic credentials from the environment, or ""."""
    user, token = access.env.get(USER, ""), secret(access.env, TOKEN)
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode() if user and token else ""
