"""Which requests may pass, by whom and what for. Decided by the head, before the body is read.

Host and Origin are checked first: a page in the user's browser that was led here (DNS rebinding) names its own server
in them. Then the token. A POST has to be JSON, which no page can send to another origin unasked.

A client need not send Accept, a session, or a protocol version: mempalace's own clients send none of them.
"""

from __future__ import annotations

import hmac
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from ...machine.session import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .page_access import PageAccess

MCP = "/mcp"
HEALTH = "/healthz"
JOBS = {"/health": ("GET",), "/jobs": ("GET", "POST"), "/shutdown": ("POST",)}  # of mempalace's own daemon
METRICS = "/metrics"
PAGE_FILES = ("/", "/page.css", "/page.js", "/charts.js")  # the page itself; they hold no user data
PAGE = "/page/"  # the data that it asks for
LOGIN = "login"
PROOF = "proof"
COOKIE = "mempalace-page"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_MAX_ID = 128


class Route(Enum):
    """What is asked for."""

    HEALTH = auto()
    POST = auto()  # messages
    GET = auto()  # the rest of a stream that broke off
    DELETE = auto()  # the end of a session
    JOBS = auto()  # the job API
    METRICS = auto()
    PAGE_FILE = auto()
    PAGE_LOGIN = auto()
    PAGE_PROOF = auto()  # that we are the broker that the page knows
    PAGE_DATA = auto()


VIEWS = (Route.METRICS, Route.PAGE_FILE, Route.PAGE_LOGIN, Route.PAGE_PROOF, Route.PAGE_DATA)


class Head(NamedTuple):
    """A request's head; names of headers are lower case."""

    method: str
    target: str
    headers: Mapping[bytes, bytes]


class Admitted(NamedTuple):
    """A request that may go on.

    Attributes:
        token: that it showed. origin: what that token permits.
        session, last_event: as named by the client, or "". version: of the protocol, "" where it says none.
        streams: whether it accepts a stream of events as the answer.
        method, target: of a request to the job API.
        detail: of a request of the page: the file, the code, our proof, or the path and query below /page/.
    """

    route: Route
    token: str = ""
    origin: Origin | None = None
    session: str = ""
    version: str = ""
    streams: bool = False
    last_event: str = ""
    method: str = ""
    target: str = ""
    detail: str = ""


class ViewAccess(NamedTuple):
    """The credentials that open the page and the metrics.

    Attributes:
        metrics: the token for the metrics alone, "" where there is none. page: who may see the page.
        now: seconds since 1970.
    """

    metrics: str
    page: PageAccess
    now: float


class Refusal(NamedTuple):
    """A request that ends here: the status, and a sentence for people. `header`: one more for the answer."""

    status: int
    text: str
    header: tuple[str, str] | None = None


_NO_VISIT = Refusal(401, "this page has to be opened again: mempalace-broker open")
_NO_TOKEN = Refusal(401, "the token is missing or wrong", ("WWW-Authenticate", 'Bearer realm="mempalace"'))


def judge(
    head: Head, *, port: int, keys: Mapping[str, Origin], versions: tuple[str, ...], views: ViewAccess
) -> Admitted | Refusal:
    """Whether a request may go on.

    Args:
        port: on which we listen. keys: tokens, and what each permits. versions: of the protocol that we speak.
    """
    refusal = _stranger(head, port)
    if refusal is not None:
        return refusal
    path = head.target.partition("?")[0]
    if path == HEALTH:
        return Admitted(Route.HEALTH) if head.method == "GET" else _not_allowed("GET")
    if path == METRICS:
        return _judge_metrics(head, keys, views)
    if path in PAGE_FILES:
        return Admitted(Route.PAGE_FILE, detail=path) if head.method == "GET" else _not_allowed("GET")
    if path.startswith(PAGE):
        return _judge_page(head, path.removeprefix(PAGE), port, views)
    jobs = path in JOBS or path.startswith("/jobs/")
    if path != MCP and not jobs:
        return Refusal(404, f"nothing is here; MCP is at {MCP}")
    token = _token(head, keys)
    if token is None:
        return _NO_TOKEN
    if jobs:
        return _job(head, path, token, keys[token])
    if head.method not in ("POST", "GET", "DELETE"):
        return _not_allowed("POST, GET, DELETE")
    if head.method == "POST" and _word(head, b"content-type").partition(";")[0].strip() != "application/json":
        return Refusal(415, "the body must be application/json")
    version = _text(head, b"mcp-protocol-version")
    if version and version not in versions:
        return Refusal(400, f"protocol version {version[:32]!r} is none of {', '.join(versions)}")
    return Admitted(
        Route[head.method],
        token,
        keys[token],
        session=_text(head, b"mcp-session-id"),
        version=version,
        streams="text/event-stream" in _word(head, b"accept"),
        last_event=_text(head, b"last-event-id"),
    )


def _job(head: Head, path: str, token: str, origin: Origin) -> Admitted | Refusal:
    """Judge a request to the job API, which is for the user's own programs."""
    if origin is not Origin.USER:
        return Refusal(403, "jobs are for mempalace's own hooks and commands")
    methods = JOBS.get(path, ("GET",))
    if head.method not in methods:
        return _not_allowed(", ".join(methods))
    return Admitted(Route.JOBS, token, origin, method=head.method, target=head.target)


def _judge_metrics(head: Head, keys: Mapping[str, Origin], views: ViewAccess) -> Admitted | Refusal:
    """Judge a request for the metrics, which a token of their own opens, and that of the user's own programs."""
    tokens = [token for token, origin in keys.items() if origin is not Origin.GUEST]
    token = _token(head, [*tokens, *filter(None, [views.metrics])])
    if token is None:
        return _NO_TOKEN
    return Admitted(Route.METRICS, token) if head.method == "GET" else _not_allowed("GET")


def _judge_page(head: Head, what: str, port: int, views: ViewAccess) -> Admitted | Refusal:
    """Judge a request of the page. It sends a code once, then cookie and key; other pages can't send that header."""
    scheme, shown = _authorization(head)
    if scheme == LOGIN and what == LOGIN:
        return Admitted(Route.PAGE_LOGIN, detail=shown) if head.method == "POST" else _not_allowed("POST")
    cookie = _cookie(head, f"{COOKIE}-{port}")
    if what == PROOF and head.method == "GET":
        proof = views.page.proof(cookie, f"{port} {head.target.partition('?')[2]}", views.now)
        return Admitted(Route.PAGE_PROOF, cookie, detail=proof) if proof else _NO_VISIT
    if scheme != "page" or not views.page.permits(cookie, shown, views.now):
        return _NO_VISIT
    if head.method != "GET":
        return _not_allowed("GET")
    return Admitted(Route.PAGE_DATA, cookie, detail=head.target.removeprefix(PAGE))


def _cookie(head: Head, name: str) -> str:
    for part in head.headers.get(b"cookie", b"").decode("latin-1").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


def _stranger(head: Head, port: int) -> Refusal | None:
    """Why a request that was meant for another server is refused, or None."""
    host = _word(head, b"host")
    if host not in _LOOPBACK and host.removesuffix(f":{port}") not in _LOOPBACK:
        return Refusal(403, "the Host header names another server")
    origin = _word(head, b"origin")
    if origin and not _is_local(origin):
        return Refusal(403, "requests from other origins are refused")
    return None


def _is_local(origin: str) -> bool:
    scheme, _, place = origin.partition("://")
    name, colon, port = place.rpartition(":")
    if not colon or not port.isdecimal():
        name = place
    return scheme in ("http", "https") and name in _LOOPBACK


def _token(head: Head, keys: Iterable[str]) -> str | None:
    scheme, shown = _authorization(head)
    found = None
    for key in keys:  # all of them, so that the time tells nothing
        if hmac.compare_digest(shown.encode("latin-1"), key.encode("ascii")):
            found = key
    return found if scheme == "bearer" else None


def _authorization(head: Head) -> tuple[str, str]:
    """Return the scheme in lower case, and the credentials."""
    scheme, _, shown = head.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return scheme.lower(), shown.strip()


def _not_allowed(methods: str) -> Refusal:
    return Refusal(405, f"allowed: {methods}", ("Allow", methods))


def _text(head: Head, name: bytes) -> str:
    return head.headers.get(name, b"").decode("latin-1").strip()[:_MAX_ID]


def _word(head: Head, name: bytes) -> str:
    return head.headers.get(name, b"").decode("latin-1").strip().lower()
