"""`bugreport`: what a maintainer needs, in one file, without a word of the memory and without secrets."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
import tarfile
import time
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import EXIT_OK, BrokerError, StateRootError, file_hint
from ..system.logs import PREVIOUS, tail, without_contents
from .context_options import palace_options

if TYPE_CHECKING:
    from ..system.paths import Context

_LOG_LINES = 5000
_LOG_BYTES = 4 << 20
_SECRET = "(secret)"
_LEAST_SECRET = 4  # characters; shorter values of variables would blank half of the report
_TOKEN_BYTES = 256
_ENGINE_LINE = re.compile(r"(\S+ \w+ engine: )(.*)")
_NAMES_A_SECRET = re.compile(r"(?i)token|secret|passw|key$|dsn")
_PASSWORD_IN_URL = re.compile(r"(://[^\s/:@\"']*:)[^\s/@\"]+@")  # of a proxy, of a database


@click.command("bugreport", short_help="Pack what a bug report needs, without contents or secrets.")
@click.option(
    "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Default: one with the time in its name."
)
@click.option("--json", "as_json", is_flag=True, help='One JSON document: {"file", "parts": {name: bytes}}.')
@palace_options
def command_bugreport(context: Context, output: str | None, as_json: bool) -> int:
    """Write a .tar.gz for a bug report: versions, `doctor`, `status`, settings and the broker's log.

    Drawers, queries and answers are not in the log. Of what the engine itself wrote only tracebacks are taken; tokens
    and the values of `env` in config.toml are replaced, and your home directory is shown as ~. Look into the file
    before you send it: it names your palace, your agents and programs that have the palace open.

    \b
    Example:
      mempalace-broker bugreport
      tar -xzOf mempalace-broker-report-*.tar.gz | less

    \b
    Exit codes: 0, 73 the file exists or can't be written.
    """
    path = output or time.strftime("mempalace-broker-report-%Y%m%d-%H%M%S.tar.gz")
    parts = _parts(context)
    _write(path, parts)
    if as_json:
        click.echo(
            json.dumps({"file": os.path.abspath(path), "parts": {name: len(data) for name, data in parts.items()}})
        )
        return EXIT_OK
    for name, data in parts.items():
        click.echo(f"{len(data):>10,}  {name}")
    click.echo(f"{path} is written. Look into it before you send it.")
    return EXIT_OK


def _parts(context: Context) -> dict[str, bytes]:
    """File name -> content."""
    from ..doctor.diagnose import diagnose
    from .status import ask_status

    settings, secrets = _settings(context)
    hidden = _hidden(context, secrets)
    status = ask_status(context)
    if engine := status.get("engine"):
        engine["stderr_tail"] = [without_contents(line) for line in engine.get("stderr_tail") or []]
    texts = {
        "machine.json": json.dumps(_machine(), indent=1),
        "doctor.json": json.dumps([finding.as_json() for finding in diagnose(context)], indent=1),
        "status.json": json.dumps(status, indent=1),
        "settings.json": json.dumps(settings, indent=1),
    }
    for name, log in (("broker.log", context.files.log), ("broker.log.1", context.files.log + PREVIOUS)):
        if lines := tail(log, _LOG_LINES, _LOG_BYTES):
            texts[name] = "\n".join(map(_of_the_log, lines))
    return {name: _scrub(text, hidden).encode("utf-8", "replace") for name, text in texts.items()}


def _machine() -> dict[str, Any]:
    return {
        "mempalace-broker": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "cores": os.cpu_count(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _settings(context: Context) -> tuple[dict[str, Any], list[str]]:
    """The broker's settings, or what is wrong with them; and the values of the engine's variables."""
    from ..settings_files import PrivateSettings

    try:
        settings = PrivateSettings.read(context.env).broker(context.env, context.identity.path)
    except BrokerError as exc:
        return {"problem": exc.message}, []
    return settings.as_json(), list(settings.env.values())


def _hidden(context: Context, secrets: list[str]) -> dict[str, str]:
    """What is replaced: text -> by what; the longest first."""
    from ..broker.http.hub import hub_folder
    from ..broker.http.machine.hub_record import TOKEN
    from ..system.paths import home_of
    from ..system.token_file import HTTP_FILE, METRICS_FILE, read_token, token_path

    secrets = secrets + [value for name, value in context.env.items() if _NAMES_A_SECRET.search(name)]
    with contextlib.suppress(BrokerError):  # `doctor` says what is wrong with it
        secrets.append(read_token(token_path(context.files.root)) or "")
    private = context.files.private
    for file in (private.file(HTTP_FILE), private.file(METRICS_FILE), hub_folder(private).file(TOKEN)):
        with contextlib.suppress(OSError):  # as above
            token = file.read(_TOKEN_BYTES) or b""
            secrets.append(token.decode("ascii", "replace").strip())
    hidden = {text: _SECRET for secret in secrets if len(secret) >= _LEAST_SECRET for text in _spellings(secret)}
    if home := home_of(context.env).rstrip("/"):
        hidden.setdefault(home, "~")
    return dict(sorted(hidden.items(), key=lambda pair: -len(pair[0])))


def _spellings(text: str) -> tuple[str, str]:
    return text, json.dumps(text)[1:-1]


def _of_the_log(line: str) -> str:
    match = _ENGINE_LINE.match(line)
    return match[1] + without_contents(match[2]) if match else line


def _scrub(text: str, hidden: dict[str, str]) -> str:
    for secret, shown in hidden.items():
        text = text.replace(secret, shown)
    return _PASSWORD_IN_URL.sub(rf"\1{_SECRET}@", text)


def _write(path: str, parts: dict[str, bytes]) -> None:
    """Make the file; it is nobody's but the user's.

    Raises:
        StateRootError: it exists, or can't be written.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            for name, data in parts.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime = len(data), int(time.time())
                tar.addfile(entry, io.BytesIO(data))
    except OSError as exc:
        hint = file_hint(exc, "name another one with --output")
        raise StateRootError(f"cannot write {path}: {exc.strerror or exc}.", hint=hint) from exc
