"""Find the commit that each companion's ref is at: ask the host's API, then git itself, else keep the name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from . import answers
from .asking import Pace, persist
from .model import How, Resolved
from .process import output_of
from .recipe import SCHEMES, Companion, Project
from .retry import LookupFailed, refused
from .web import Web, secret


@dataclass(frozen=True)
class Access:
    """The means to ask: HTTP, environment, retries, time.

    Attributes:
        web: HTTP. env: the environment, tokens included. tokens: host -> variable. pace: retries. now: UNIX time.
    """

    web: Web
    env: Mapping[str, str]
    tokens: Mapping[str, str]
    pace: Pace
    now: Callable[[], float]


RUNNER = "GITHUB_TOKEN"
_Question = Callable[[], Awaitable[str]]


async def resolve(project: Project, access: Access) -> list[Resolved]:
    """Resolve all companions at once, in the file's order. Raise ConfigError for a malformed token only."""
    for variable in (*access.tokens.values(), RUNNER):
        secret(access.env, variable)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_resolve_one(companion, access)) for companion in project.companion]
    return [task.result() for task in tasks]


async def _resolve_one(companion: Companion, access: Access) -> Resolved:
    given = (answers.given_version if companion.kind == "npm" else answers.given_sha)(companion.ref)
    if given:
        return Resolved(name=companion.name, ref=companion.ref, value=given, how="given")
    reasons: list[str] = []
    ways = _ways(companion, access)
    for how, question in ways:
        try:
            value = await persist(question, access.pace, access.pace.policy.total / len(ways))
            return Resolved(name=companion.name, ref=companion.ref, value=value, how=how, note="; ".join(reasons))
        except LookupFailed as exc:
            reasons.append(f"{how}: {exc.reason}")
    return Resolved(name=companion.name, ref=companion.ref, value=companion.ref, how="name", note="; ".join(reasons))


def _ways(companion: Companion, access: Access) -> Sequence[tuple[How, _Question]]:
    if companion.kind == "npm":
        return [("npm", lambda: _from_npm(companion, access))]
    git: tuple[How, _Question] = ("git", lambda: _from_git(companion, access))
    if companion.kind == "git":
        return [git]
    return [("api", lambda: _from_api(companion, access)), git]


async def _from_api(companion: Companion, access: Access) -> str:
    token = token_for(companion.url, access)
    if companion.kind == "github":
        url, accept, scheme = github_url(companion), "application/vnd.github.sha", "Bearer"
    else:
        url, accept, scheme = gitea_url(companion), "application/json", "token"
    reply = await access.web.ask("GET", url, accept=accept, authorization=f"{scheme} {token}" if token else "")
    if reply.status != 200:
        raise refused(reply.status, reply.headers, access.now())
    return (answers.github_commit if companion.kind == "github" else answers.gitea_commit)(reply.body)


def github_url(companion: Companion) -> str:
    """URL of the commit at the ref; any host but github.com is an Enterprise server."""
    base, owner, repository = _parts(companion.url)
    api = "https://api.github.com" if base == "https://github.com" else f"{base}/api/v3"
    return f"{api}/repos/{owner}/{repository}/commits/{quote(companion.ref)}"


def gitea_url(companion: Companion) -> str:
    """URL of the newest commit at the ref, without the parts that are slow to compute."""
    base, owner, repository = _parts(companion.url)
    question = f"limit=1&stat=false&verification=false&files=false&sha={quote(companion.ref, safe='')}"
    return f"{base}/api/v1/repos/{owner}/{repository}/commits?{question}"


def _parts(url: str) -> tuple[str, str, str]:
    """("https://host[:port][/prefix]", owner, repository)."""
    parsed = urlsplit(url)
    *prefix, owner, repository = [part for part in parsed.path.split("/") if part]
    base = "/".join([f"{parsed.scheme}://{parsed.netloc.lower()}", *prefix])
    return base, quote(owner), quote(repository.removesuffix(".git"))


def token_for(url: str, access: Access) -> str:
    """Return the token for the host of `url`, or "".

    The server that runs the workflow ($GITHUB_SERVER_URL) issues $GITHUB_TOKEN; Gitea uses the same name. It is sent to
    that server only, whatever the table of tokens says.
    """
    host = urlsplit(url).netloc.lower()
    server = urlsplit(access.env.get("GITHUB_SERVER_URL", "")).netloc.lower()
    variable = access.tokens.get(host, "")
    if variable == RUNNER and server not in {"", host}:
        variable = ""
    token = secret(access.env, variable) if variable else ""
    return token or (secret(access.env, RUNNER) if server == host else "")


async def _from_git(companion: Companion, access: Access) -> str:
    names = [name for ref in answers.candidates(companion.ref) for name in (ref, f"{ref}^{{}}")]
    done = await output_of(["git", "ls-remote", "--", companion.url, *names], git_environment(access))
    if done.status:
        raise LookupFailed(done.complaint or f"git ls-remote ended with {done.status}", transient=True)
    return answers.ls_remote(done.stdout, companion.ref)


async def _from_npm(companion: Companion, access: Access) -> str:
    argv = ["npm", "view", f"{companion.url}@{companion.ref}", "version", "--json"]
    done = await output_of(argv, _without_secrets(access))
    if done.status:
        raise LookupFailed(done.complaint or f"npm view ended with {done.status}", transient=True)
    return answers.npm_version(done.stdout)


def git_environment(access: Access) -> dict[str, str]:
    """The environment of a git that asks no questions (terminal, window, host key) and uses allowed transports only."""
    env = _without_secrets(access)
    env.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=10")
    env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "LC_ALL": "C"}
    return env | {"GIT_ALLOW_PROTOCOL": ":".join(SCHEMES)}


def _without_secrets(access: Access) -> dict[str, str]:
    hidden = {*access.tokens.values(), RUNNER, "REGISTRY_TOKEN"}
    return {name: value for name, value in access.env.items() if name not in hidden}
