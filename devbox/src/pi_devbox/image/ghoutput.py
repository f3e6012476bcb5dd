"""Outputs of a workflow step: `key=value` lines in the file that $GITHUB_OUTPUT names, on Gitea's runner too."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import ConfigError

_KEY = re.compile(r"[a-z][a-z0-9_]*")


def render(outputs: Mapping[str, str | bool]) -> str:
    """Format the lines. Raise ConfigError for a value that is not one printable line: it could add further outputs."""
    lines = []
    for key, value in outputs.items():
        text = str(value).lower() if isinstance(value, bool) else value
        if not _KEY.fullmatch(key) or not (text.isprintable() and text.isascii()):
            raise ConfigError(f"output {key!r} can't be written as one line: {text!r}.")
        lines.append(f"{key}={text}\n")
    return "".join(lines)


def append(env: Mapping[str, str], outputs: Mapping[str, str | bool]) -> None:
    """Append the outputs to $GITHUB_OUTPUT. Raise ConfigError if it is not set."""
    path = env.get("GITHUB_OUTPUT", "")
    if not path:
        raise ConfigError("--github-output needs $GITHUB_OUTPUT, which a workflow's runner sets.", hint="use --json")
    text = render(outputs)
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise ConfigError(f"$GITHUB_OUTPUT ({path}) can't be written: {exc.strerror}.") from exc
