"""Ask a registry which tags it has: HEAD of a manifest, or the list (OCI distribution specification 1.1, section 3)."""

from __future__ import annotations

import asyncio
import base64
import functools
import re
from collections.abc import Sequence
from urllib.parse import urlencode, urljoin, urlsplit

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
        "application/json",
    ]
)
_PAGE, _MOST_PAGES = 1000, 100


async def look_up(image: str, tags: Sequence[str], access: Access) -> dict[str, TagFact]:
    """Look up each tag. One without an answer is "unknown". Raise ConfigError for a malformed token only."""
    basic(access)
    async with asyncio.TaskGroup() as group:
        tasks = {tag: group.create_task(_look_up_one(image, tag, access)) for tag in tags}
    return {tag: task.result() for tag, task in tasks.items()}


async def list_tags(image: str, access: Access) -> list[str]:
    """List all tags of the image, none if the registry does not know it. Raise LookupFailed without an answer."""
    base, repository = split_name(image)
    url, found = f"{base}/v2/{repository}/tags/list?n={_PAGE}", []
    for _ in range(_MOST_PAGES):
        reply = await persist(functools.partial(_get, url, repository, access), access.pace, access.pace.policy.total)
        if reply.status == 404:
            return []
        found += answers.tags(reply.body)
        following = re.search(r'<([^>]+)>;\s*rel="?next', reply.headers.get("link", ""))
        if following is None:
            return found
        url = urljoin(url, following[1])
        if not url.startswith(f"{base}/"):
            break
    raise LookupFailed("a list of tags without an end")


def facts_from(listed: Sequence[str], tags: Sequence[str]) -> dict[str, TagFact]:
    """The facts about `tags` according to a list of all tags."""
    return {tag: TagFact("present" if tag in listed else "absent") for tag in tags}


async def _look_up_one(image: str, tag: str, access: Access) -> TagFact:
    try:
        return await persist(lambda: _ask(image, tag, access), access.pace, access.pace.policy.total)
    except LookupFailed as exc:
        return TagFact("unknown", exc.reason)


async def _ask(image: str, tag: str, access: Access) -> TagFact:
    base, repository = split_name(image)
    reply = await _request("HEAD", f"{base}/v2/{repository}/manifests/{tag}", repository, access)
    if reply.status == 404:
        return TagFact("absent")
    kind = reply.headers.get("content-type", "")
    if reply.status == 200 and "manifest" not in kind and "index" not in kind:
        raise LookupFailed(f"{base} does not answer like a registry ({kind or 'no content type'})")
    if reply.status != 200:
        raise refused(reply.status, reply.headers, access.now())
    return TagFact("present", answers.manifest_digest(reply.headers.get("docker-content-digest", "")))


async def _get(url: str, repository: str, access: Access) -> Reply:
    reply = await _request("GET", url, repository, access)
    if reply.status not in {200, 404}:
        raise refused(reply.status, reply.headers, access.now())
    return reply


async def _request(method: str, url: str, repository: str, access: Access) -> Reply:
    """Ask once, and once more with the credentials that a 401 asks for."""
    reply = await access.web.ask(method, url, accept=_ACCEPT)
    if reply.status != 401:
        return reply
    base = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    authorization = await _authorization(base, repository, reply, access)
    return await access.web.ask(method, url, accept=_ACCEPT, authorization=authorization)


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
