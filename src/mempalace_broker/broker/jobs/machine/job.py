"""One job: its form on disk, its form for mempalace's clients, and its state after each answer of the engine.

    QUEUED -> RUNNING -> SUCCEEDED | FAILED; back to QUEUED if it was not executed, may run twice, or is `unproved`

A job is a session of the broker's protocol, with a secret of its own, so its outcome is proved like that of any other
write. Each time that it is given to an engine counts as a connection, whose second line is the job. Where the broker's
journal can't prove the outcome of a diary entry, the store does, before the job runs again: see proof.py.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from .... import errors
from ....protocol.hello import HELLO, OUTCOMES, WIRE_VERSION, WriteOutcome
from ....protocol.jobs import KINDS, TOOL, is_long, may_run_twice, request
from ....protocol.jsonrpc import load, load_object, to_bytes, whole_number
from ....protocol.tools import rule_for
from . import proof
from .proof import DIARY_TOOL, Proof

MOST_RUNS = 5  # of a job that may run twice and whose outcome is unknown
MOST_PROVED = 20  # of one that is proved not to be stored; with the pauses between, engines have died for 15 minutes
GIVE_UP_S = 7 * 86400.0  # a job that can't be executed for this long has failed
_MARGIN_S = 600.0  # a wall clock may have been set meanwhile
_LINE = 2  # of its connection
_NOT_EXECUTED = {
    errors.NOT_EXECUTED,
    errors.WAIT_TIMEOUT,
    errors.ENGINE_DOWN,
    errors.OVERLOADED,
}
_UNKNOWN = "the broker or its engine ended while the job ran; whether it was stored is unknown"
_WAITS = "LockHeldByOtherProcess"  # by this word mempalace's clients recognise a job that is waiting


class JobState(StrEnum):
    """The states, in the words of mempalace's daemon."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class Job:
    """See above. Times in seconds since 1970.

    Attributes:
        connection: number of the last one by which it may have reached an engine.
        epoch: of the broker that had the job then. attempts: how often it may have begun.
        given: when it was last given to an engine. unproved: whether the store has to prove the outcome of that run.
    """

    id: str
    kind: str
    payload: dict[str, Any]
    secret: str
    created: float
    epoch: int
    priority: int = 0
    dedupe_key: str | None = None
    connection: int = 1
    state: JobState = JobState.QUEUED
    started: float | None = None
    finished: float | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    attempts: int = 0
    given: float | None = None
    unproved: bool = False
    retry_at: float = field(default=0.0, metadata={"kept": False})

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in (JobState.SUCCEEDED, JobState.FAILED)

    @property
    def waits(self) -> bool:
        """Whether it waits for its turn."""
        return self.state is JobState.QUEUED

    def encode(self) -> bytes:
        """The content of its file."""
        return to_bytes(asdict(self))

    @classmethod
    def decode(cls, data: bytes | None) -> Job | None:
        """Read the content of a file; None if it is not a job."""
        body = load_object(data)
        try:
            job = cls(**body)
            job.state = JobState(job.state)
        except (TypeError, ValueError):
            return None
        job.retry_at = 0.0
        return job if isinstance(job.payload, dict) and job.kind in KINDS else None

    def as_json(self, *, payload: bool = False) -> dict[str, Any]:
        """Return the job as mempalace's clients read it."""
        told = {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "priority": self.priority,
            "dedupe_key": self.dedupe_key,
            "created_at": _iso(self.created),
            "started_at": _iso(self.started),
            "finished_at": _iso(self.finished),
            "result": self.result,
            "error": self.error,
            "attempts": self.attempts,
        }
        return {**told, "payload": self.payload} if payload else told

    # -- lines to the broker

    def hello(self, pid: int) -> bytes:
        """Return the first line of its present connection."""
        params = {
            "wire": WIRE_VERSION,
            "session": self.id,
            "secret": self.secret,
            "connection": self.connection,
            "client": f"job {self.kind}",
            "pid": pid,
        }
        return to_bytes({"jsonrpc": "2.0", "id": 1, "method": HELLO, "params": params})

    def line(self) -> bytes:
        """Return the second line: the job itself."""
        return to_bytes(request(self.kind, self.payload))

    def question(self, now: float) -> bytes:
        """Return a second line that asks instead for the outcome of the job on the connection before."""
        age = max(0.0, now - self._since) + _MARGIN_S
        params = {"connection": self.connection - 1, "lines": [_LINE], "age_s": age, "epoch": self.epoch}
        return to_bytes({"jsonrpc": "2.0", "id": 2, "method": OUTCOMES, "params": params})

    def proof(self) -> bytes:
        """Return a second line that asks the store about an entry of unknown outcome."""
        return to_bytes(proof.question(self._arguments))

    @property
    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = request(self.kind, self.payload)["params"]["arguments"]
        return arguments

    @property
    def _since(self) -> float:
        """The earliest time at which its last run can have begun."""
        return self.created if self.given is None else self.given

    # -- answers

    def begins(self, now: float) -> None:
        """Note that it is the job's turn."""
        self.state, self.started, self.error = JobState.RUNNING, now, None
        self.attempts += 1

    def took(self, answer: dict[str, Any], now: float) -> bool:
        """Take the answer to `line`; return whether the job has to run again."""
        error = answer.get("error")
        if not isinstance(error, dict):
            self._told(_result(self.kind, answer.get("result")), now)
        elif error.get("code") in _NOT_EXECUTED:
            self.attempts -= 1
            self._again(str(error.get("message")), now)
        elif error.get("code") == errors.OUTCOME_UNKNOWN:
            self._unknown(str(error.get("message")), now)
        else:
            self._fail(str(error.get("message")), now)
        return self.waits

    def took_outcome(self, answer: dict[str, Any], now: float) -> None:
        """Take the answer to `question`."""
        result = answer.get("result")
        outcomes = result.get("outcomes") if isinstance(result, dict) else None
        found = outcomes.get(str(_LINE), {}) if isinstance(outcomes, dict) else {}
        self.attempts = max(1, self.attempts - 1)  # this turn was for the question alone
        if found.get("state") == WriteOutcome.DONE and isinstance(found.get("response"), dict):
            self.took(found["response"], now)
        elif found.get("state") == WriteOutcome.NOT_STARTED:
            self.attempts -= 1
            self.state = JobState.QUEUED
        else:
            self._unknown(_UNKNOWN, now)

    def took_proof(self, answer: dict[str, Any], now: float) -> None:
        """Take the answer to `proof`; the job stays RUNNING if it has to run again, now."""
        error = answer.get("error")
        shown = Proof.UNREAD if error else proof.found(answer.get("result"), self._arguments, self._since, now)
        if shown is Proof.ABSENT and self.attempts <= MOST_PROVED:
            self.unproved = False
            return
        self.attempts -= 1  # it was not given to an engine
        if shown is Proof.STORED:
            self._told({"success": True, "note": "its engine ended; `diary_read` shows that it is stored"}, now)
        elif shown is Proof.ABSENT:
            self._fail(f"it is not stored: the broker or its engine ended in each of {self.attempts} attempts", now)
        elif isinstance(error, dict) and error.get("code") not in _NOT_EXECUTED:
            self._fail(_UNKNOWN, now)  # a question that ends its engine is not asked again
        elif shown is Proof.UNREAD:
            self._again(_UNKNOWN, now)
        else:
            self._fail(f"{_UNKNOWN}: other entries hide it, or are too much like it", now)

    def _told(self, told: dict[str, Any], now: float) -> None:
        if told.get("success") is False and told.get("error_class") == _WAITS:
            self.attempts -= 1
            self._again(str(told.get("error")), now)
            return
        good = told.get("success", "error" not in told) is not False
        self.result = {"success": good, "exit_code": 0 if good else 1, **told}
        self.error = None if good else {"message": str(told.get("error", "job failed"))}
        self._ended(JobState.SUCCEEDED if good else JobState.FAILED, now)

    def _unknown(self, text: str, now: float) -> None:
        tool = request(self.kind, self.payload)["params"]["name"]
        if tool == DIARY_TOOL and isinstance(self._arguments, dict):
            self.unproved = True
            self._again(text, now)
        elif may_run_twice(self.kind, tool) and self.attempts < MOST_RUNS:
            self._again(text, now)
        else:
            self._fail(text, now)

    def _again(self, text: str, now: float) -> None:
        if now - self.created > GIVE_UP_S:
            self._fail(text, now)
        else:
            self.state, self.error = JobState.QUEUED, {"error_class": _WAITS, "message": text}

    def _fail(self, text: str, now: float) -> None:
        self.result = {"success": False, "exit_code": 1, "error": text}
        self.error = {"message": text}
        self._ended(JobState.FAILED, now)

    def _ended(self, state: JobState, now: float) -> None:
        self.unproved = False
        self.state, self.finished, self.payload, self.secret = state, now, {}, ""


def asked_for(body: dict[str, Any], *, id_: str, secret: str, now: float, epoch: int) -> Job:
    """Return the job that the body of a POST asks for.

    Raises:
        ValueError: the body does not describe a job; says why.
    """
    kind, payload, key = body.get("kind"), body.get("payload") or {}, body.get("dedupe_key")
    if kind not in KINDS or not isinstance(payload, dict):
        raise ValueError(f"unknown kind of job: {kind!r}")
    name = payload.get("name")
    if kind == TOOL and (is_long(str(name).removeprefix("mempalace_")) or not _writes(name)):
        raise ValueError(f"a job of kind {TOOL} takes only tools that write, not {name!r}")
    for path in _paths(payload) if is_long(kind) else ():
        if not isinstance(path, str) or not path.startswith(("/", "~")):
            raise ValueError(f"{path!r} is relative to a folder that the broker does not know: give an absolute path")
    priority = whole_number(body.get("priority"), -(1 << 31), 1 << 31) or 0
    return Job(id_, kind, payload, secret, now, epoch, priority, key if isinstance(key, str) else None)


def _writes(tool: object) -> bool:
    rule = rule_for(tool)
    return rule.known and rule.writes


def _paths(payload: dict[str, Any]) -> list[Any]:
    """Return the paths in a payload, except those of `files`, which are relative to the source."""
    roots = payload.get("root")
    named = [payload.get(word) for word in ("source", "dir", "target")]
    return [path for path in named if path] + (roots if isinstance(roots, list) else [])


def _result(kind: str, result: object) -> dict[str, Any]:
    """Return the result of a job, from that of its request."""
    if not isinstance(result, dict):
        return {"success": False, "error": "the engine's answer can't be read"}
    if is_long(kind):
        return result
    try:
        text = str(result["content"][0]["text"])
        told = load(text.encode())
    except (KeyError, IndexError, TypeError):
        return {"success": False, "error": "the engine's answer can't be read"}
    except ValueError:
        told = text
    failed = result.get("isError") is True
    return told if isinstance(told, dict) else {"success": not failed, "error" if failed else "value": told}


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()
