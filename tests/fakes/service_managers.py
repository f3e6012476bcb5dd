#!/usr/bin/env python3
"""A `systemctl` or a `launchctl`, by the name it is called by, as far as services of a user need them. In its folder:

refuse    there: every command fails, with what is in it
no-gui    there: launchd has no session of the desktop
bad       there: no service starts whose file has these words in it
used      what was asked, one line each
loaded    of launchd: the domain and the plist of each service; of systemd: the names of what runs, and the units as
          `daemon-reload` read them
"""

from __future__ import annotations

import json
import os
import plistlib
import sys
from pathlib import Path
from typing import Any

HERE = Path(sys.argv[0]).absolute().parent
UNITS = Path(os.environ.get("HOME", "/nonexistent")) / ".config/systemd/user"
PID = 4711


def main(program: str, words: list[str]) -> int:
    with (HERE / "used").open("a") as used:
        used.write(" ".join([program, *words]) + "\n")
    if (HERE / "refuse").exists():
        return fail(1, (HERE / "refuse").read_text())
    loaded = json.loads((HERE / "loaded").read_text()) if (HERE / "loaded").exists() else {}
    status = (systemctl if program == "systemctl" else launchctl)(words, loaded)
    (HERE / "loaded").write_text(json.dumps(loaded))
    return status


def fail(status: int, words: str) -> int:
    print(words, file=sys.stderr)
    return status


def is_bad(text: str) -> bool:
    return (HERE / "bad").exists() and (HERE / "bad").read_text() in text


def systemctl(words: list[str], running: dict[str, Any]) -> int:
    assert words[0] == "--user", words
    verb, *rest = words[1:]
    unit = next((word for word in rest if word.endswith(".service")), "")
    file, link = UNITS / unit, UNITS / "default.target.wants" / unit
    if verb == "show":
        state = "enabled" if link.is_symlink() else "disabled" if file.exists() else ""
        active = unit in running
        print(f"MainPID={PID if active else 0}\nUnitFileState={state}")
        print(f"ActiveState={'active' if active else 'inactive'}")
    elif verb in {"enable", "start", "restart"} and not file.exists():
        return fail(1, f"Failed to {verb} unit: Unit file {unit} does not exist.")
    elif verb == "enable":
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(file)
    elif verb == "daemon-reload":
        running["read"] = {file.name: file.read_text() for file in UNITS.glob("*.service")}
    elif verb in {"start", "restart"}:
        if is_bad(running["read"][unit]):
            return fail(1, f"Failed to {verb} {unit}: Unit {unit} has a bad unit file setting.")
        running[unit] = True
    elif verb == "disable":
        link.unlink(missing_ok=True)
        running.pop(unit, None)
    return 0


def launchctl(words: list[str], loaded: dict[str, Any]) -> int:
    verb, target = words[:2]
    if verb == "bootstrap":
        if target.startswith("gui/") and (HERE / "no-gui").exists():
            return fail(125, "Bootstrap failed: 125: Domain does not support specified action")
        if is_bad(Path(words[2]).read_text()):
            return fail(5, "Bootstrap failed: 5: Input/output error")
        name = f"{target}/{plistlib.loads(Path(words[2]).read_bytes())['Label']}"
        if name in loaded:
            return fail(5, "Bootstrap failed: 5: Input/output error")
        loaded[name] = "running"
    elif target not in loaded:
        return fail(113, f'Could not find service "{target}"')
    elif verb == "print":
        print(f"{target} = {{\n\tactive count = 1\n\tstate = running\n\tpid = {PID}\n}}")
        if loaded[target] == "leaving":  # it answers bootout before the process has ended
            del loaded[target]
    elif verb == "bootout":
        loaded[target] = "leaving"
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[0]).name, sys.argv[1:]))
