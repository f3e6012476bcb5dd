"""What a process runs: for messages about it, and before it is killed."""

from __future__ import annotations

import os

import psutil

_OURS = ("mempalace_broker", "mempalace-broker")


def process_command(pid: int) -> str:
    """The name of a process, "" where it can't be told. Of its arguments only the module or script that a Python
    runs is named: the others may hold secrets.
    """
    try:
        process = psutil.Process(pid)
        name = str(process.name())
        words = process.cmdline() if name.lower().startswith("python") else []  # a framework's is "Python"
    except (psutil.Error, OSError):
        return ""
    return _python_program(name, words)


def is_ours(pid: int) -> bool:
    """Whether a process runs a program of ours, as our user. A note in a shared file may name any process."""
    try:
        process = psutil.Process(pid)
        user, words = process.uids().effective, process.cmdline()
    except (psutil.Error, OSError):
        return False
    return os.geteuid() in (0, user) and any(name in word for word in words for name in _OURS)


def _python_program(name: str, words: list[str]) -> str:
    """ "python -m module" or the script's file name, for an interpreter; else the name."""
    for number, word in enumerate(words[1:], 1):
        if word == "-m" and number + 1 < len(words):
            return f"{name} -m {words[number + 1]}"
        if word == "-c":
            return f"{name} -c"
        if not word.startswith("-"):
            return word.rsplit("/", 1)[-1]
    return name
