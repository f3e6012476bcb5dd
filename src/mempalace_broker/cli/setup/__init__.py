"""`setup`: put mp-shim into the configurations of the agents on this machine, or take it out again; and offer what an
agent's first call needs, if it is missing.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ...doctor.upstream_clients import knows_routing
from ...errors import EXIT_FAILURE, EXIT_OK, EXIT_USAGE, BrokerError
from ...protocol.text import printable
from ..context_options import palace_options
from ..outcome import say_error
from .machine.agents import AGENTS, HOOKS
from .machine.plan import Outcome, Plan
from .offers import Offers, engine_offer, installed_service, model_offer, service_offer
from .readiness import in_words, readiness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.paths import Context
    from .files import Configuration

_WIDEST = 10_000
_NEXT = (
    "`mempalace-broker ensure` starts the broker now, so that the first session finds its tools at once; "
    "`mempalace-broker setup --remove` undoes it all."
)
_CHANGES = (Outcome.ADD, Outcome.CONVERT, Outcome.UPDATE, Outcome.REMOVE, Outcome.RESTORE)


class Step(NamedTuple):
    """One configuration and what would become of it."""

    found: Configuration
    plan: Plan

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.plan.outcome in _CHANGES


@click.command("setup", short_help="Put mp-shim into your agents' configurations, or take it out.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--yes", is_flag=True, help="Don't ask: change the configurations, install nothing.")
@click.option("--only", multiple=True, metavar="AGENT", help="This agent only; may be repeated.")
@click.option("--engine/--no-engine", default=None, help="Install mempalace if missing, or don't, without asking.")
@click.option("--model/--no-model", default=None, help="The same for the embedding model.")
@click.option("--service/--no-service", default=None, help="The same for the service, as `service install` does it.")
@click.option("--remove", is_flag=True, help="Undo it: our entry goes, or becomes again what it was.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of words; with --yes or --dry-run.")
@palace_options
def command_setup(
    context: Context,
    dry_run: bool,
    yes: bool,
    only: tuple[str, ...],
    engine: bool | None,
    model: bool | None,
    service: bool | None,
    remove: bool,
    as_json: bool,
) -> int:
    """Find the agents on this machine, show what would change in their configurations, ask, and change it.

    Only the entry `mempalace` is touched; comments, order, other servers and file modes stay. One that runs
    mempalace-mcp keeps its flags and environment. A copy of each file as it was lies beside it. Agents take the change
    with their next session.

    If mempalace itself, its embedding model or the service is missing, setup shows the command that installs it, asks,
    and runs it. --yes does not answer these questions: nothing is installed unless you say so, here or by an option.

    \b
    Example:
      mempalace-broker setup --dry-run
      mempalace-broker setup --only codex --only cursor
      mempalace-broker setup --yes --engine --no-service
      mempalace-broker setup --remove

    \b
    Exit codes: 0 done, or nothing to do; 1 a configuration could not be changed, or something
    could not be installed; 2 wrong usage, or there is nobody to ask; 78 the palace is invalid.
    """
    keys = [agent.key for agent in (*AGENTS, HOOKS)]
    unknown = sorted(set(only) - set(keys))
    if unknown:
        known = ", ".join(keys)
        raise click.UsageError(f"--only {unknown[0]}: no such agent. There are {known}.")
    if remove and (engine or model or service):
        raise click.UsageError("--remove installs nothing.")
    if not (yes or dry_run) and (as_json or not sys.stdin.isatty()):
        say_error("there is nobody to ask.", "give --yes, or --dry-run to see what would change")
        return EXIT_USAGE
    words = _words(context)
    offers = Offers(dry_run, yes or as_json, _say_nothing if as_json else _say)
    if not remove:
        offers.consider(engine_offer(context), engine)  # first: whether its hooks can be set up depends on its version
    ready = {} if remove else readiness(context)
    steps = _steps(context, only, words, remove=remove)
    if (remove or knows_routing(ready["engine"]["version"] or "")) and (not only or HOOKS.key in only):
        steps += _hooks(context, remove=remove)
    if not as_json:
        _show(steps, only)
    failed: dict[str, str] = {}
    if any(step.changes for step in steps) and not dry_run and (yes or click.confirm("Change them?")):
        failed = _carry_out(steps, words)
        if not as_json and not failed:
            _say("done; agents use it from their next session on.")
    if not remove:
        ready["model"] = "cached" if offers.consider(model_offer(context, model), model) else ready["model"]
        offers.consider(service_offer(context, service), service)
        ready["offers"] = offers.as_json()
    if as_json:
        changed = [step.found.agent.key for step in steps if step.changes and not dry_run]
        rows = [_as_json(step, failed) for step in steps]
        click.echo(json.dumps({"changed": [key for key in changed if key not in failed], "agents": rows, **ready}))
    elif ready:
        _say(*in_words(ready), "" if failed or dry_run else _NEXT)
    elif stays := installed_service(context):
        _say(f"The service stays. To remove it: {stays}")
    return EXIT_FAILURE if failed or offers.failed else EXIT_OK


def _words(context: Context) -> list[str]:
    """The command line of a new entry."""
    from ..programs import own_program

    return [own_program("mp-shim"), *context.identity.options]


def _steps(context: Context, only: tuple[str, ...], words: list[str], *, remove: bool) -> list[Step]:
    from ...system.paths import home_of
    from .files import find_configurations
    from .machine.plan import plan, plan_removal

    steps = []
    chosen = [agent for agent in AGENTS if not only or agent.key in only]
    for found in find_configurations(chosen, context.env, home_of(context.env)):
        if found.problem:
            decided = Plan(Outcome.LEAVE, None, found.problem)
        elif remove:
            backup = found.backup_text()
            unusable = backup is None and found.has_backup
            decided = plan_removal(found.agent, found.text, backup, second=found.second, unusable=unusable)
        else:
            decided = plan(found.agent, found.text, words, second=found.second)
        steps.append(Step(found, decided))
    return steps


def _hooks(context: Context, *, remove: bool) -> list[Step]:
    from ...system.paths import home_of
    from .files import find_hooks
    from .machine.hooks import plan_hooks, plan_hooks_removal

    found = find_hooks(context.env, home_of(context.env))
    if found is None:
        return []
    if found.text is None:
        return [Step(found, Plan(Outcome.LEAVE, None, found.problem))]
    if not remove:
        return [Step(found, plan_hooks(found.text))]
    backup = found.backup_text()
    return [Step(found, plan_hooks_removal(found.text, backup, unusable=backup is None and found.has_backup))]


def _show(steps: list[Step], only: tuple[str, ...]) -> None:
    for step in steps:
        found, decided = step
        _say(
            f"{found.agent.name}: {decided.outcome}", f"  {found.file}", *(f"  {line}" for line in decided[2:] if line)
        )
        if step.changes:
            _say(*_diff(step))
    missing = set(only) - {step.found.agent.key for step in steps}
    for key in sorted(missing):
        _say(f"{key}: not found on this machine")
    if not steps and not only:
        _say("No agent that this command knows was found. docs/cli.md lists them; README.md has the lines for others.")


def _say_nothing(*_: str) -> None:
    """In place of `_say`, where one JSON document is wanted."""


def _say(*lines: str) -> None:
    for line in lines:
        if line:
            click.echo(printable(line, _WIDEST))


def _diff(step: Step) -> Iterator[str]:
    before, after = step.found.text or "", step.plan.after or ""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), step.found.file, "(then)", n=1, lineterm="")
    return (line.expandtabs(4) for line in lines)


def _carry_out(steps: list[Step], words: list[str]) -> dict[str, str]:
    """Do it; what failed, by agent."""
    from .files import change

    failed = {}
    for found, decided in (step for step in steps if step.changes):
        try:
            change(found, decided, words)
        except BrokerError as exc:
            failed[found.agent.key] = str(exc)
            say_error(f"{found.agent.name}: {exc.message}", exc.hint)
    return failed


def _as_json(step: Step, failed: dict[str, str]) -> dict[str, Any]:
    found, decided = step
    return {
        "agent": found.agent.key,
        "file": found.file,
        "outcome": str(decided.outcome),
        "note": decided.note,
        "hint": decided.hint,
        "backup": found.backup if os.path.exists(found.backup) else None,
        "error": failed.get(found.agent.key),
    }
