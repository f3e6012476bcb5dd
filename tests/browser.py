"""A real browser for tests, driven over the pipe of its DevTools protocol: no port, no driver, nothing to install but
Chromium or Chrome.

    with Browser(folder) as browser:
        browser.go("http://127.0.0.1:21000/")
        browser.until("document.title === 'hello'")
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.proctools import eventually, marked

VARIABLE = "MPB_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ANSWER_S = 30.0
_FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
_LAUNCHER = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 10) for fd in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""  # the browser reads commands from 3 and answers on 4


def find_browser() -> str:
    """The browser's program; skips the test where there is none."""
    found = os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: install Debian's chromium, or name one in {VARIABLE}")
    return found


class Browser:
    """One browser with one tab.

    Args:
        folder: gets its profile and all other files of the browser. flags: more of them.

    Attributes:
        requests: the address of every request. problems: exceptions and errors that the console showed.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._count = 0
        self._rest = b""
        self._session: dict[str, str] = {}
        program = find_browser()
        flags = (*_FLAGS, *flags, f"--user-data-dir={folder}", *(["--no-sandbox"] if os.geteuid() == 0 else []))
        folder.mkdir(exist_ok=True)
        self._folder = folder
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        launcher = [sys.executable, "-c", _LAUNCHER, str(theirs_in), str(theirs_out)]
        self._log = open(folder.parent / f"{folder.name}.log", "wb")  # noqa: SIM115 - closed with the browser
        self._process = subprocess.Popen(
            [*launcher, program, *flags, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(theirs_in, theirs_out),
            env={**os.environ, "HOME": str(folder), "TMPDIR": str(folder)},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    # -- the protocol

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command, and its result."""
        self._count += 1
        request = {"id": self._count, "method": method, "params": params, **self._session}
        os.write(self._out, json.dumps(request).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_S
        while (message := self._read(deadline)).get("id") != self._count:
            self._note(message)
        assert "error" not in message, (method, message["error"])
        result: dict[str, Any] = message["result"]
        return result

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._in, 1 << 16) if ready else b""
            assert data, "the browser does not answer"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url')}")

    # -- what a person does

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 20.0) -> Any:
        """Wait until an expression in the page is true."""

        def true() -> Any:
            with contextlib.suppress(AssertionError):  # between two pages there is none to ask
                return self.evaluate(script)

        return eventually(true, seconds, f"{script} in the page")

    def text(self, selector: str) -> str:
        """What a person reads there."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str, code: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, text="\r" if key == "Enter" else "")

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """The whole page, as far down as it goes, or what the window shows."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    # -- the end

    def close(self) -> None:
        with contextlib.suppress(AssertionError, OSError):
            self._session = {}
            self.call("Browser.close")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._log.close()
        eventually(lambda: not marked(str(self._folder)), what="the end of the browser")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
