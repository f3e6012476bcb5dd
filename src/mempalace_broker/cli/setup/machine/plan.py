"""Decide what becomes of one configuration file. Pure: text in, text out."""

from __future__ import annotations

from enum import StrEnum
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from ....errors import UsageError
from . import jsonc, toml, yaml
from .entry import NAME, changes, recognise, words_of

if TYPE_CHECKING:
    from .agents import Agent, Place

_FORMATS: dict[str, ModuleType] = {"json": jsonc, "toml": toml, "yaml": yaml}
UNUSABLE_BACKUP = (
    "the copy from before, beside it, is a link or can't be read, and is not used: only our entry goes.",
    "look into the file, if our entry had replaced another one",
)


class Outcome(StrEnum):
    """What would happen to a file; the words that people read."""

    ADD = "add"
    CONVERT = "convert"  # an entry that ran mempalace's own server
    UPDATE = "update"  # an entry of ours, with another path
    REMOVE = "remove"
    RESTORE = "restore"  # as it was before we came
    NOTHING = "unchanged"
    LEAVE = "left alone"  # something there is not ours to change; the note says what


class Plan(NamedTuple):
    """The outcome for one file, and its text then: None where there is no file."""

    outcome: Outcome
    after: str | None
    note: str = ""
    hint: str = ""


def plan(agent: Agent, text: str | None, words: list[str], *, second: bool = False) -> Plan:
    """What makes `agent` start `words`.

    Args:
        text: its configuration, None where there is no file. words: mp-shim's absolute path, and its options.
        second: an agent of its second generation, see Agent.
    """
    try:
        return _plan(agent, text, words, second)
    except UsageError as exc:
        return Plan(Outcome.LEAVE, text, exc.message, exc.hint)


def _plan(agent: Agent, text: str | None, words: list[str], second: bool) -> Plan:
    form = _FORMATS[agent.form]
    place = place_in(agent, text, second=second)
    entry = form.get(text or "", place.path)
    if entry is None:
        new = form.put(text or "", place.path, place.new(words))
        return Plan(Outcome.ADD, new, *_beside(agent, form.get(text or "", place.path[:-1])))
    found = recognise(words_of(entry, agent.shape))
    if found is None:
        program = words_of(entry, agent.shape)[0]
        return Plan(
            Outcome.LEAVE, text, f"its server {NAME} runs {program}.", "change it by hand, if it should be ours"
        )
    if "--transport" in found.args:
        return Plan(Outcome.LEAVE, text, "its server mempalace has a --transport.", "remove that option first")
    wanted = [words[0], *(found.args or words[1:])]
    new = text or ""
    for field, value in changes(entry, agent.shape, wanted).items():
        new = form.put(new, (*place.path, field), value)
    if new == text:
        return Plan(Outcome.NOTHING, text)
    return Plan(Outcome.UPDATE if found.ours else Outcome.CONVERT, new)


def _beside(agent: Agent, servers: Any) -> tuple[str, str]:
    """Note and hint about a server of another name that opens the palace itself."""
    if isinstance(servers, list):
        servers = {entry.get("name"): entry for entry in servers if isinstance(entry, dict)}
    for name, entry in (servers or {}).items():
        try:
            found = recognise(words_of(entry, agent.shape))
        except UsageError:
            continue
        if found is not None and not found.ours:
            return (
                f"its server {name} runs mempalace's own server.",
                f"remove {name}: it opens the palace beside the broker",
            )
    return "", ""


def plan_removal(
    agent: Agent, text: str | None, backup: str | None, *, second: bool = False, unusable: bool = False
) -> Plan:
    """What undoes `plan`.

    Args:
        backup: the file as it was before, None where it was not there. Where nothing else has changed since, it is put
            back byte for byte; else our entry goes, or becomes the one that it was.
        unusable: the backup is there, but can't be read.
    """
    try:
        known = backup if backup is None or _is_readable(agent, backup, second) else None
        planned = _plan_removal(agent, text, known, second)
        if planned.outcome is Outcome.REMOVE and (unusable or known is not backup):
            return planned._replace(note=UNUSABLE_BACKUP[0], hint=UNUSABLE_BACKUP[1])
        return planned
    except UsageError as exc:
        return Plan(Outcome.LEAVE, text, exc.message, exc.hint)


def _is_readable(agent: Agent, backup: str, second: bool) -> bool:
    try:
        _FORMATS[agent.form].get(backup, place_in(agent, backup, second=second).path)
    except UsageError:
        return False
    return True


def _plan_removal(agent: Agent, text: str | None, backup: str | None, second: bool) -> Plan:
    form = _FORMATS[agent.form]
    place = place_in(agent, text, second=second)
    entry = form.get(text or "", place.path)
    if text is None or entry is None:
        return Plan(Outcome.NOTHING, text)
    found = recognise(words_of(entry, agent.shape))
    if found is None or not found.ours:
        return Plan(Outcome.NOTHING, text)
    if plan(agent, backup, words_of(entry, agent.shape), second=second).after == text:
        return Plan(Outcome.RESTORE, backup)
    before: Any = None
    if backup is not None:
        before = form.get(backup, place_in(agent, backup, second=second).path)
    if before is not None:
        return Plan(Outcome.RESTORE, form.put(text, place.path, before))
    return Plan(Outcome.REMOVE, form.drop(text, place.path))


def place_in(agent: Agent, text: str | None, *, second: bool) -> Place:
    """Where in the file the entry is, or goes: by what the file has, else by the agent's generation."""
    first, *others = agent.places
    if others and (second or _FORMATS[agent.form].get(text or "", others[0].path[:-1]) is not None):
        return others[0]
    return first
