"""The address of the PostgreSQL: asked for once, and kept where only the user can read it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from ...errors import StateRootError, UsageError, file_hint
from ...settings_files import PrivateSettings, settings_path
from ...system.private import SETTINGS, settings_folder
from ...system.shared_files import replace_file

if TYPE_CHECKING:
    from ...system.paths import Context

DSN = "MEMPALACE_PGVECTOR_DSN"
_LIMIT = 1 << 18
_URL = "postgresql://user:password@host/database"


def keep_address(context: Context) -> None:
    """Make sure that config.toml has the address of the palace's database.

    Raises:
        UsageError: there is no address, it is not a URL, or the settings are invalid.
        StateRootError: config.toml can't be written.
    """
    path = context.identity.path
    if PrivateSettings.read(context.env).broker(context.env, path).env.get(DSN):
        return
    address = os.environ.get(DSN, "")
    if not address and sys.stdin.isatty():
        address = click.prompt(f"Address of the database ({_URL})", hide_input=True, err=True)
    if not address.startswith(("postgresql://", "postgres://")):
        what = "is not a URL" if address else "is not set"
        raise UsageError(f"{DSN} {what}.", hint=f"set it under env in {settings_path(context.env)}, as {_URL}")
    _keep(context, address)


def _keep(context: Context, address: str) -> None:
    import tomlkit  # late: only here

    file = settings_folder(context.env).file(SETTINGS)
    try:
        document = tomlkit.parse((file.read(_LIMIT) or b"").decode("utf-8-sig"))
        table = document
        for name in ("palaces", context.identity.path, "env"):
            if name not in table:
                table[name] = tomlkit.table(is_super_table=name == "palaces")
            table = table[name]
        table[DSN] = address
        data = tomlkit.dumps(document).encode()
        if os.path.islink(file.path):  # of a dotfile manager: the link stays, and `read` has found its target sound
            replace_file(os.path.realpath(file.path), data)
        else:
            file.write(data)
    except OSError as exc:
        hint = file_hint(exc, otherwise=f"set {DSN} there")
        raise StateRootError(f"{file.path} can't be written: {exc.strerror or exc}.", hint=hint) from exc
