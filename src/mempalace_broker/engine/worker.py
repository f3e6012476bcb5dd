"""Main program of the engine child: frames in, mempalace's answers out.

    main thread       start, then the palace lane (one call at a time, first in, first out)
    reader thread     reads frames from the broker and puts the calls into their lanes; runs short reads of an idle
                      free lane itself
    free thread       the free lane: knowledge graph, log stream, constants
    wait threads      one for each call that blocks for long; the broker limits their number
    prefetch thread   embeds the text of calls that will come

End of file on the pipe means that the broker is gone: finish the running calls, begin no waiting one, exit 0.
Standard output is never used: importing mempalace points it elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

from ..errors import EXIT_FAILURE, EXIT_OK
from ..protocol.engine_frames import (
    BEGUN,
    CALL,
    CONFINE,
    DEGRADED,
    DONE,
    FAIL,
    HELLO,
    PARK,
    PARKED,
    PREFETCH,
    READY,
    UNPARK,
    WAITING,
    Frame,
    FrameError,
)
from ..protocol.tools import Lane
from . import payload
from .adapter import EngineFailure, Mempalace, Options
from .call import Call
from .confinement import Confinement
from .embedding_prefetch import texts_to_embed
from .empty_palace import treat_empty_palace_as_missing
from .journal_file import JournalFile
from .lanes import InlineReads, JobQueue, start_thread
from .mine_progress import watch_mine
from .model_guard import guard_model
from .model_loading import give_memory_back
from .ownership import give_all_away, owner_is_another
from .parking import close_palace, store_failed
from .pipes import BrokerPipes
from .power_safety import PowerSafety
from .search_config import fingerprint, is_outdated
from .shared_opens import OpenGuard, refuse_to_write_through
from .storage import StorageWatch, storage_facts, storage_warnings
from .store_markers import guard_markers
from .stored_embedders import distrust_stored_embedders
from .tuneups.apply import apply_tuneups, open_tuned
from .unparking import Lookout, wait_for_palace
from .write_limits import limit_writes

# never between two files of a mine: mine and sync would work on the same files, reconnect closes the mine's handles
_NOT_BETWEEN_FILES = frozenset({"mempalace_mine", "mempalace_sync", "mempalace_reconnect"})


class _BrokerGone(BaseException):
    """Ends a mine between two files: nobody waits for its answer, and the next broker waits for this process."""


class Worker:
    """One engine: a mempalace, its lanes, and the pipes to the broker."""

    def __init__(self, pipes: BrokerPipes, mempalace: Mempalace, journal: JournalFile, lookout: Lookout) -> None:
        self._pipes = pipes
        self._mempalace = mempalace
        self._for_another = owner_is_another(mempalace.palace_path())
        self._journal = journal
        self._lookout = lookout
        self._power = PowerSafety(mempalace, journal.path)
        self._confinement = Confinement(mempalace.own_folders())
        self._palace_lane = JobQueue()
        self._free_lane = JobQueue()
        self._prefetches = ThreadPoolExecutor(1, "engine-prefetch")
        self._broker_gone = threading.Event()
        self._report: dict[str, Any] = {}
        self._trouble: list[dict[str, str]] = []  # of the last opening
        self._storage = StorageWatch(mempalace)
        self._store_failed = False
        self._inline_reads = InlineReads()
        self._ready = threading.Event()
        self._free_lane_done = threading.Event()

    # -- frames ------------------------------------------------------------------------------------

    def read_frames(self) -> None:
        """Body of the reader thread."""
        try:
            for frame in self._pipes.frames():
                if frame.verb in (CALL, CONFINE):
                    self._dispatch(Call(frame))
                elif frame.verb == PREFETCH:
                    self._prefetches.submit(self._prefetch, frame.payload)
                elif frame.verb == PARK:
                    self._palace_lane.put(lambda _: self._park(), between_files=False)
                elif frame.verb == UNPARK:
                    self._palace_lane.put(lambda _: self._unpark(), between_files=False)
        except (OSError, FrameError) as exc:
            print(f"the broker's pipe failed: {exc}", file=sys.stderr, flush=True)
        finally:
            self._broker_gone.set()
            if not self._ready.is_set():
                os._exit(EXIT_OK)  # nothing has run yet, and opening a palace may take long
            self._palace_lane.close()
            self._free_lane.close()

    def _dispatch(self, call: Call) -> None:
        lane, journalled, now = call.frame.lane, call.frame.tag != "-", time.monotonic()
        if lane == Lane.FREE and not journalled and self._inline_reads.allowed(now) and self._free_lane.idle:
            self._run(call, waited=False)
            self._inline_reads.took(now, time.monotonic())
        elif lane == Lane.FREE:
            self._free_lane.put(lambda waited: self._run(call, waited))
        elif lane == Lane.WAIT:
            start_thread(lambda: self._run(call, waited=False), "engine-wait")
        else:
            between_files = call.tool not in _NOT_BETWEEN_FILES
            self._palace_lane.put(lambda waited: self._run_palace(call, waited), between_files=between_files)

    # -- lanes -------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run the palace lane on this thread until the broker is gone."""
        start_thread(self._serve_free_lane, "engine-free")
        self._palace_lane.run()
        self._free_lane_done.wait()

    def _serve_free_lane(self) -> None:
        try:
            self._free_lane.run()
        finally:
            self._free_lane_done.set()

    def announce_ready(self, report: dict[str, Any]) -> None:
        """Open the palace for the first time and tell the broker. `report`: what `_prepare` found."""
        self._report = {**report, "drawers": self._open(lambda: open_tuned(self._mempalace, report["tuneups"]))}
        if self._for_another:
            give_all_away(self._mempalace)
        self._ready.set()
        self._send_ready()
        if self._mempalace.model is not None:
            start_thread(give_memory_back, "engine-trim")

    def _park(self) -> None:
        self._store_failed = False
        problem = close_palace(self._mempalace)
        self._pipes.send(Frame(PARKED, payload=payload.encode_response({"problem": problem})))

    def _unpark(self) -> None:
        def tell(holder: str) -> None:
            self._pipes.send(Frame(WAITING, payload=payload.encode_response({"holder": holder})))

        if is_outdated(self._mempalace.server._config, self._mempalace.palace_path()):
            print("config.json has changed: the next engine reads it", file=sys.stderr, flush=True)
            os._exit(EXIT_OK)  # it has nothing open
        if wait_for_palace(self._mempalace, self._broker_gone, tell, self._lookout):
            self._open(self._mempalace.open_palace)
            self._send_ready()

    def _reopen(self) -> bool:
        """Close the palace and open it again before the next write: that would wait for the failed one's transaction.

        Not at once: with a full disk, Chroma can read what it has opened, but can't open it again.

        Returns:
            False if the broker went away meanwhile: the palace stays closed, and its lock may be another process's.
        """
        self._store_failed = False
        if problem := close_palace(self._mempalace):
            print(f"the palace can't be closed after a failed write: {problem}", file=sys.stderr, flush=True)
            os._exit(EXIT_FAILURE)
        if not wait_for_palace(self._mempalace, self._broker_gone, lambda _: None, self._lookout):
            return False
        self._open(self._mempalace.open_palace)
        self._send_ready(DEGRADED)
        return True

    def _open(self, opening: Callable[[], Any]) -> Any:
        """Open the palace on this one thread."""
        self._trouble = []
        try:
            return opening()
        except Exception as exc:  # noqa: BLE001 - a palace that does not open is reported; calls report the rest
            self._trouble = [{"what": f"the palace did not open: {exc}", "hint": "mempalace repair-status"}]
            return None

    def _send_ready(self, verb: str = READY) -> None:
        trouble = [*self._mempalace.warnings, *self._trouble, *self._storage.trouble, *self._journal.trouble]
        report = {**self._report, "degraded": [*self._report["degraded"], *trouble]}
        self._pipes.send(Frame(verb, payload=payload.encode_response(report)))

    def _prefetch(self, line: bytes) -> None:
        embed = self._mempalace.prefetch_embedding
        if embed is None:
            return
        try:
            tool, arguments = payload.tool_call(payload.decode_request(line))
            for text in texts_to_embed(self._mempalace.server, tool, arguments):
                embed(text)
        except Exception as exc:  # noqa: BLE001 - a prefetch is optional; the call itself reports the error
            print(f"not embedded ahead: {exc}", file=sys.stderr)

    # -- calls -------------------------------------------------------------------------------------

    def _run_palace(self, call: Call, waited: bool) -> None:
        """Run a call of the palace lane; a mine lets others in between two files."""
        journalled, mining = call.frame.tag != "-", self._mempalace.between_texts is not None
        if self._store_failed and journalled and not mining and not self._reopen():
            return
        watched = watch_mine(self._mempalace, call, self._between_files, self._pipes.send)
        with contextlib.suppress(_BrokerGone), watched:
            answer = self._run(call, waited)
            if self._storage.changed(answer):
                self._send_ready(DEGRADED)
            if journalled and store_failed(answer):
                self._store_failed = True
        self._mempalace.finish_call()

    def _between_files(self) -> bool:
        if self._broker_gone.is_set():
            raise _BrokerGone
        return self._palace_lane.run_between_files(self._mempalace.calls_at_boundary)

    def _run(self, call: Call, waited: bool) -> bytes:
        """Run and answer a call; return the answer. If the broker gave a key, the journal notes start and end."""
        frame = call.frame
        if waited:
            self._pipes.send(Frame(BEGUN, frame.n))
        key = frame.tag
        if key != "-" and not self._journal.started(key):
            key = "-"
            response = payload.not_journalled(call.request, self._journal.error, self._journal.hint)
        else:
            with self._confinement.confine(call.folders):
                response = call.error or self._mempalace.handle(call.request)
        body = payload.encode_answer(call.request, response)
        if key != "-" and self._for_another:
            give_all_away(self._mempalace)
        if key != "-":
            self._journal.ended(key, body)
        if key != "-" and (unconfirmed := self._power.confirm(call.request, call.tool)):
            response, body = unconfirmed, payload.encode_response(unconfirmed)
        if self._ready.is_set() and self._journal.changed():
            self._send_ready(DEGRADED)  # first: whoever has the answer may ask for the status
        self._pipes.send(Frame(DONE, frame.n, tag=str(payload.response_code(response)), payload=body))
        return body


# -- start and end -------------------------------------------------------------------------------------


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mempalace-broker-engine")
    parser.add_argument("--rfd", type=int, required=True)
    parser.add_argument("--wfd", type=int, required=True)
    parser.add_argument("--palace", required=True)
    parser.add_argument("--real", default="")
    parser.add_argument("--by", default="default")
    parser.add_argument("--backend")
    parser.add_argument("--journal")
    parser.add_argument("--tune", type=int, default=1)
    parser.add_argument("--power-safe", type=int, default=0)
    return parser.parse_args(argv)


def _prepare(mempalace: Mempalace) -> dict[str, Any]:
    """Tune mempalace before it opens the palace; return what the ready frame says of that."""
    degraded: list[dict[str, str]] = []
    try:
        warning = guard_model(mempalace)
        degraded += [warning] if warning else []
    except Exception as exc:  # noqa: BLE001 - a model that can't be set up is reported; calls report the rest
        degraded.append({"what": f"the embedding model can't be set up: {exc}", "hint": "mempalace-broker doctor"})
    degraded += storage_warnings(mempalace)
    tuneups = apply_tuneups(mempalace, wanted=mempalace.options.tune)
    guard_markers(mempalace, mempalace.backend)
    if mempalace.is_chroma():
        treat_empty_palace_as_missing(mempalace)
        distrust_stored_embedders()
    return {"degraded": degraded, "tuneups": tuneups}


def _serve(args: argparse.Namespace, pipes: BrokerPipes) -> None:
    switches = bool(args.tune), args.real, bool(args.power_safe)
    options = Options(args.palace, args.by, args.backend, args.journal, *switches)
    start_thread(pipes.exit_if_abandoned, "engine-watch")
    root = [os.path.dirname(options.journal)] if options.journal else []
    OpenGuard([options.palace, *root]).install()
    mempalace = Mempalace(options)
    mempalace.refusals.append(lambda tool, arguments: refuse_to_write_through(mempalace.config_path(), tool, arguments))
    hello = {**mempalace.hello(), **storage_facts(mempalace), "fingerprint": fingerprint(mempalace.server._config)}
    pipes.send(Frame(HELLO, payload=payload.encode_response(hello)))
    mempalace.take_write_lock()
    journal = JournalFile(options.journal)  # after the lock: no other engine is in the middle of an entry
    lookout = Lookout()
    limits = limit_writes(mempalace, options.journal)
    worker = Worker(pipes, mempalace, journal, lookout)
    start_thread(worker.read_frames, "engine-reader")
    worker.announce_ready({**_prepare(mempalace), "write_limits": limits})
    worker.serve()
    close_palace(mempalace)
    journal.close()


def _isolate_process() -> None:
    """Keep the pipes and the engine lock from what mempalace starts, and leave ^C to the broker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in os.listdir("/dev/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                os.set_inheritable(int(name), False)


def main(argv: list[str]) -> None:
    """Run the engine; never returns: threads inside Chroma must not delay the exit."""
    args = _parse(argv)
    _isolate_process()
    pipes = BrokerPipes(args.rfd, args.wfd)
    code = EXIT_OK
    try:
        _serve(args, pipes)
    except EngineFailure as failure:
        detail = {"reason": failure.reason, "message": failure.message, "hint": failure.hint}
        pipes.send(Frame(FAIL, tag=str(failure.exit_code), payload=json.dumps(detail).encode("utf-8")))
        print(failure.message, file=sys.stderr)
        code = failure.exit_code
    except Exception as exc:  # noqa: BLE001 - the reason must reach the log, then this process ends
        print(f"the engine failed: {type(exc).__name__}: {exc}", file=sys.stderr)
        code = EXIT_FAILURE
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
