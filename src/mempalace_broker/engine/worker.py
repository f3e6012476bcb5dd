"""Main of the engine child: frames in, mempalace's answers out.

    main thread     start, then the palace lane (one call at a time, first in first out)
    reader thread   takes frames from the broker and puts the calls into their lanes; runs reads of an idle free lane
    free thread     the free lane: knowledge graph, log stream, constants
    wait threads    calls that block for long
    embed thread    embeds the text of calls that will come (hints)

End of file on the pipe means that the broker is gone: what runs is finished, what waits is not begun, exit 0.
Standard output is never used: importing mempalace points it elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any

from ..errors import EXIT_FAILURE, EXIT_OK, NOT_EXECUTED
from ..protocol.engine_frames import Frame, FrameError
from . import payload
from .adapter import Fault, Mempalace, Options, start_thread
from .embedding import guard_model
from .journal_file import JournalFile
from .lanes import Lane, WaitingPlace
from .pipes import BrokerPipes
from .prefetch import texts_of
from .tuning import tune

# while a mine lets others in: mine and sync would work on the same files, reconnect closes its handles
_NOT_BETWEEN_FILES = frozenset({"mempalace_mine", "mempalace_sync", "mempalace_reconnect"})


_SHORT_S = 0.05  # what a read may keep the reader thread from its frames


class _BrokerGone(BaseException):
    """Ends a mine between two files: nobody waits for it any more, and the next broker waits for us."""


class Worker:
    """One engine: a mempalace, its lanes, and the link to the broker."""

    def __init__(self, link: BrokerPipes, mempalace: Mempalace, journal: JournalFile) -> None:
        self._link = link
        self._mempalace = mempalace
        self._journal = journal
        self._palace = Lane()
        self._free = Lane()
        self._wait = WaitingPlace()
        self._gone = False
        self._inline = True
        self._ready = threading.Event()
        self._free_done = threading.Event()
        self._hints: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    # -- frames ------------------------------------------------------------------------------------

    def read_frames(self) -> None:
        """Body of the reader thread."""
        try:
            for frame in self._link.frames():
                if frame.verb == "exit":
                    self._begin_nothing_more()
                else:
                    self._take(frame)
        except (OSError, FrameError) as exc:
            print(f"the broker's pipe failed: {exc}", file=sys.stderr, flush=True)
        finally:
            self._gone = True
            self._begin_nothing_more()

    def _begin_nothing_more(self) -> None:
        if not self._ready.is_set():
            os._exit(EXIT_OK)  # nothing has run yet, and opening a palace may take long
        self._palace.close()
        self._free.close()

    def _take(self, frame: Frame) -> None:
        if frame.verb == "hint":
            self._hints.put(frame.payload)
        if frame.verb != "call":
            return
        call = RunningCall(self, frame)
        if frame.word == "free" and frame.tag == "-" and self._inline and self._free.idle:
            began = time.monotonic()
            call.run(False)  # a read of a store with locks of its own, and short: a change of threads costs more
            self._inline = time.monotonic() - began < _SHORT_S  # a large or locked store: never again here
        elif frame.word == "free":
            self._free.put(call.run)
        elif frame.word == "wait":
            self._wait.put(call.run)
        else:
            self._palace.put(call.run_palace, between=call.tool not in _NOT_BETWEEN_FILES)

    # -- lanes -------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run the palace lane on this thread until the broker says `exit` or is gone."""
        start_thread(self._serve_free, "engine-free")
        start_thread(self._embed_ahead, "engine-embed")
        self._palace.run()
        self._free_done.wait()

    def _serve_free(self) -> None:
        try:
            self._free.run()
        finally:
            self._free_done.set()

    def _embed_ahead(self) -> None:
        while True:
            line = self._hints.get()
            embed = self._mempalace.embed_ahead
            if embed is None:
                continue
            try:
                tool, arguments = payload.tool_call(payload.decode_request(line))
                for text in texts_of(self._mempalace.server, tool, arguments):
                    embed(text)
            except Exception as exc:  # noqa: BLE001 - a hint is a wish; the call itself reports what is wrong
                print(f"not embedded ahead: {exc}", file=sys.stderr)

    def announce_ready(self, report: dict[str, Any]) -> None:
        """Tell the broker that the palace is open."""
        self._ready.set()
        self._link.send(Frame("ready", payload=payload.encode_response(report)))

    def between_files(self) -> bool:
        """Called by a mine between two files: let waiting calls in."""
        if self._gone:
            raise _BrokerGone
        return self._palace.run_waiting()


class RunningCall:
    """One call frame on its way through a lane."""

    def __init__(self, worker: Worker, frame: Frame) -> None:
        self._worker = worker
        self._frame = frame
        self._bad: payload.BadRequest | None = None
        self._request: Any = None
        try:
            self._request = payload.decode_request(frame.payload)
        except payload.BadRequest as exc:
            self._bad = exc
        self.tool, self._arguments = payload.tool_call(self._request)

    def run_palace(self, waited: bool) -> None:
        """Run it on the palace lane; a mine lets others in between two files."""
        manager = None
        if self.tool == "mempalace_mine":
            manager = self._worker._mempalace.yielding(self._worker.between_files)
        with contextlib.suppress(_BrokerGone), manager or contextlib.nullcontext():
            self.run(waited)
        self._worker._mempalace.settle()

    def run(self, waited: bool) -> None:
        """Run it and answer; journalled on both sides where the broker gave it a key."""
        worker, frame = self._worker, self._frame
        if waited:
            worker._link.send(Frame("begun", frame.n))
        key = frame.tag
        if key != "-" and not worker._journal.started(key):
            key = "-"
            response = self._not_journalled(worker._journal.error)
        else:
            response = self._bad.response if self._bad else worker._mempalace.handle(self._request)
        body = _encode(self._request, response)
        if key != "-":
            worker._journal.ended(key, body)
        worker._link.send(Frame("done", frame.n, tag=str(payload.response_code(response)), payload=body))

    def _not_journalled(self, why: str) -> Any:
        text = f"{self.tool} was not executed: {why}. Hint: free space there, or allow writing; then send it again."
        return payload.error_response(payload.request_id(self._request), NOT_EXECUTED, text)


def _encode(request: Any, response: Any) -> bytes:
    try:
        return payload.encode_response(response)
    except (TypeError, ValueError, RecursionError) as exc:
        print(f"an answer can't be encoded: {exc}", file=sys.stderr, flush=True)
        return payload.encode_response(payload.error_response(payload.request_id(request), -32603, "Internal error"))


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mempalace-broker-engine")
    parser.add_argument("--rfd", type=int, required=True)
    parser.add_argument("--wfd", type=int, required=True)
    parser.add_argument("--palace", required=True)
    parser.add_argument("--by", default="default")
    parser.add_argument("--backend")
    parser.add_argument("--collection")
    parser.add_argument("--journal")
    parser.add_argument("--tune", type=int, default=1)
    return parser.parse_args(argv)


def _open(mempalace: Mempalace) -> dict[str, Any]:
    """Tune and open the palace on this one thread; return the payload of the ready frame."""
    degraded: list[dict[str, str]] = []
    drawers = None
    try:
        missing = guard_model(mempalace)
        degraded += [missing] if missing else []
    except Exception as exc:  # noqa: BLE001 - a model that can't be set up is reported, calls say the rest
        degraded.append({"what": f"the embedding model can't be set up: {exc}", "hint": "mempalace-broker doctor"})
    tuneups = tune(mempalace, wanted=mempalace.options.tune)
    degraded += mempalace.troubles
    try:
        drawers = mempalace.warm_up()
    except Exception as exc:  # noqa: BLE001 - a palace that does not open is reported, calls say the rest
        degraded.append({"what": f"the palace did not open: {exc}", "hint": "mempalace repair-status"})
    return {"degraded": degraded, "drawers": drawers, "tuneups": tuneups}


def _run(args: argparse.Namespace, link: BrokerPipes) -> int:
    options = Options(
        args.palace,
        by=args.by,
        backend=args.backend,
        collection=args.collection,
        journal=args.journal,
        tune=bool(args.tune),
    )
    start_thread(link.leave_if_abandoned, "engine-watch")
    mempalace = Mempalace(options)
    link.send(Frame("hello", payload=payload.encode_response(mempalace.hello())))
    mempalace.take_lease()
    journal = JournalFile(options.journal)  # with the lease: no other engine is in the middle of an entry
    worker = Worker(link, mempalace, journal)
    start_thread(worker.read_frames, "engine-reader")
    worker.announce_ready(_open(mempalace))
    worker.serve()
    journal.close()
    return EXIT_OK


def _keep_to_ourselves() -> None:
    """What mempalace starts must inherit neither the pipes nor the engine lock; ^C is for the broker to judge."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in os.listdir("/dev/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                os.set_inheritable(int(name), False)


def main(argv: list[str]) -> None:
    """Run the engine; never returns: threads inside Chroma must not hold up the exit."""
    args = _parse(argv)
    _keep_to_ourselves()
    link = BrokerPipes(args.rfd, args.wfd)
    try:
        code = _run(args, link)
    except Fault as fault:
        detail = {"reason": fault.reason, "message": fault.message, "hint": fault.hint}
        link.send(Frame("fail", tag=str(fault.exit_code), payload=json.dumps(detail).encode("utf-8")))
        print(fault.message, file=sys.stderr)
        code = fault.exit_code
    except Exception as exc:  # noqa: BLE001 - the reason must reach the log, then this process ends
        print(f"the engine failed: {type(exc).__name__}: {exc}", file=sys.stderr)
        code = EXIT_FAILURE
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
