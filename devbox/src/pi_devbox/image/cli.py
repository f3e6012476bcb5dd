"""The commands of `pi-devbox image`. Most imports are late, so that `--help` works without the extra `image`."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import DevboxError
from ..outcome import end_on_signals, say_error
from . import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .commands import Builder, Unit
    from .model import Plan, Resolved, Target
    from .session import Session

PROG = "pi-devbox"
_RELEASE = re.compile(r"v?[0-9][A-Za-z0-9_.-]{0,80}")

_EPILOG = """
\b
In a checkout:
  pi-devbox image resolve                      which commits the companions are at
  pi-devbox image plan                         what would be built, and why
  pi-devbox image build all --dry-run          with which commands

\b
Environment: GITEA_TOKEN, GITHUB_TOKEN (each sent to its host only, see [tokens] in
devbox/image/companions.toml), IMAGE, PI_DEVBOX_PLAN, REGISTRY_USER and REGISTRY_TOKEN (sent to the
registry in the image's name, and to its token server: set them for that registry only).
Exit codes: 0 fine, 1 a build failed, 2 wrong usage, 78 a file or setting makes no sense.
"""


@click.group(epilog=_EPILOG)
def command_image() -> None:
    """Plan and build the devbox image: the decisions of its workflow.

    The inputs are a checkout and its devbox/image/companions.toml. A tag is a fingerprint of all that goes
    into an image, companions included: the same inputs give the same tag on every machine, and an
    image whose tag is in the registry need not be built again. A companion that can't be resolved
    forces a build under a tag of its own: an extra build, never a missed one.
    """


@command_image.command("resolve")
@options.common
@options.outputs
def command_resolve(root: Path | None, timeout: float, as_json: bool, github_output: bool) -> None:
    """Find the commit of each companion's ref.

    Asks the API of the companion's host, then git itself. If both fail, the companion keeps the name of
    its ref, with a warning. A ref that is a commit id is passed through.
    """
    session = _open(root, timeout)
    found = session.resolve()
    _warn(found)
    if github_output:
        _append(session, _resolve_outputs(session, found))
    if as_json:
        _print_json({"companions": found})
    else:
        for one in found:
            click.echo(f"{one.name:20} {one.value:40} {one.how}")


@command_image.command("base-tag")
@options.resolved
@options.common
@options.outputs
def command_base_tag(
    resolved: Path | None, root: Path | None, timeout: float, as_json: bool, github_output: bool
) -> None:
    """Print the tag of the base, a fingerprint of all that goes into it."""
    session = _open(root, timeout)
    from .plan import base_tag  # not before `_open`, which says what is missing

    found = _resolved(session, resolved)
    tag = base_tag(session.sources, found, session.choices())
    if github_output:
        _append(session, {"base_tag": tag})
    if as_json:
        _print_json({"base_tag": tag, "companions": found})
    else:
        click.echo(tag)


@command_image.command("plan")
@options.common
@options.planned
@options.outputs
def command_plan(root: Path | None, timeout: float, as_json: bool, github_output: bool, **choices: Any) -> None:
    """Decide which images must be built, under which tags, and why.

    Asks the registry for the tags (HEAD of their manifests). Only a tag that certainly exists saves a
    build.
    """
    session = _open(root, timeout, choices.pop("platforms"))
    plan = _make_plan(session, **choices)
    if github_output:
        _append(session, _plan_outputs(plan))
    if as_json:
        _print_json(plan)
    else:
        _print_plan(plan)


@command_image.command("build")
@click.argument("target", metavar="base|variants|all|NAME")
@options.building
@click.option("--push/--no-push", default=True, show_default=True, help="Send it to the registry, or keep it local.")
@click.option("--anyway", is_flag=True, help="Also build the images that the registry has.")
@options.common
@options.planned
def command_build(target: str, push: bool, anyway: bool, root: Path | None, timeout: float, **rest: Any) -> None:
    """Build the base, the variants or one of them, and push each under its fingerprint's tag.

    Images that the registry has are left alone. A step that fails is retried. The context of a build is a
    copy of what git tracks, with your changes: an untracked file is neither in the image nor in its tag.
    """
    session, plan, work = _prepare(root, timeout, rest, target)
    from .commands import build_units

    builder = work["builder"]
    units: list[Unit] = []
    for one in _targets(plan, target):
        if one.build or anyway:
            units += build_units(builder, plan, one, push=push)
        else:
            _say(f"{one.name}: {one.tag}: nothing to build, {one.reason}")
    if units and (strays := session.untracked()):
        _say(f"warning: not in the image, because git does not track them: {', '.join(strays)}. Hint: git add them")
    with session.context() as context:
        _run(context, units, work)


@command_image.command("publish")
@options.building
@options.common
@options.planned
def command_publish(root: Path | None, timeout: float, **rest: Any) -> None:
    """Give the built variants the tags that users pull: the release and latest, or edge.

    Run it once all are built, so that latest and latest-studio move together.
    """
    session, plan, work = _prepare(root, timeout, rest)
    from .commands import publish_units
    from .plan import check_findable

    if not work["given"]:
        check_findable(plan)
    _run(session.root, [unit for one in plan.variants for unit in publish_units(work["builder"], plan, one)], work)


def _open(root: Path | None, timeout: float, platforms: Sequence[str] = ()) -> Session:
    end_on_signals()
    try:
        from .session import open_session
    except ModuleNotFoundError as exc:
        raise DevboxError(
            f"`pi-devbox image` needs {exc.name}, which is not installed.",
            hint="pip install './devbox[image]' in a checkout",
        ) from exc
    return open_session(root, timeout, platforms)


def _resolved(session: Session, path: Path | None) -> list[Resolved]:
    from .session import read_resolved

    found = read_resolved(path) if path else session.resolve()
    _warn(found)
    return found


def _warn(found: Sequence[Resolved]) -> None:
    from .plan import warning

    for one in found:
        if not one.fixed:
            _say(f"warning: {warning(one)}")
        elif one.note:
            _say(f"{one.name}: resolved by {one.how} after {one.note}")


def _make_plan(
    session: Session, image: str, release: str | None, force: bool, facts: Path | None, resolved: Path | None
) -> Plan:
    found = _resolved(session, resolved)
    plan = session.plan(found, session.choices(image, _release(release), force=force), facts)
    for text in plan.warnings[sum(not one.fixed for one in found) :]:  # _warn has printed those
        _say(f"warning: {text}")
    return plan


def _release(given: str | None) -> str:
    """The release asked for, or the git tag that a workflow runs for if it looks like one."""
    if given:
        if not _RELEASE.fullmatch(given):
            raise click.BadParameter(f"{given!r} is not a version.", param_hint="--release")
        return given
    name = os.environ.get("GITHUB_REF_NAME", "") if os.environ.get("GITHUB_REF_TYPE") == "tag" else ""
    return name if given is None and _RELEASE.fullmatch(name) else ""


def _prepare(
    root: Path | None, timeout: float, rest: dict[str, Any], target: str = "all"
) -> tuple[Session, Plan, dict[str, Any]]:
    """Return the session, a plan for this checkout, and the options of options.building.

    "given" among them says that the plan was read, not made here. Mistakes that don't depend on the plan are reported
    before it is made.
    """
    work = {name: rest.pop(name) for name in ("plan_file", "builder", "attempts", "dry_run")}
    platforms = rest.pop("platforms")
    session = _open(root, timeout, platforms)
    from .plan import check_unchanged
    from .session import read_plan

    _check_target(target, [one.name for one in session.project.variants])
    plan = read_plan(work["plan_file"], session.env)
    work["given"], work["builder"] = plan is not None, _builder(work["builder"])
    if plan is None:
        return session, _make_plan(session, **rest), work
    if platforms or any(rest.values()):
        raise click.UsageError("a plan is given (--plan or $PI_DEVBOX_PLAN): its options can't be given again.")
    check_unchanged(plan, session.sources)
    return session, plan, work


def _check_target(wanted: str, variants: Sequence[str]) -> None:
    known = ["all", "variants", "base", *variants]
    if wanted not in known:
        raise click.BadParameter(f"{wanted!r} is not one of {', '.join(known)}.", param_hint="target")


def _targets(plan: Plan, wanted: str) -> list[Target]:
    """The targets that a valid word names."""
    groups = {"all": plan.targets, "variants": plan.variants}
    return groups.get(wanted) or [one for one in plan.targets if one.name == wanted]


def _builder(wanted: str) -> Builder:
    from .commands import choose
    from .runner import buildah_works, buildx_works

    buildx = wanted == "auto" and buildx_works()
    return choose(wanted, buildx=buildx, buildah=wanted == "auto" and not buildx and buildah_works())


def _run(folder: Path, units: Sequence[Unit], work: dict[str, Any]) -> None:
    import shlex

    from .runner import run_units

    if work["dry_run"]:
        for unit in units:
            for command in unit:
                click.echo(shlex.join(command.argv) + (" || true" if command.may_fail else ""))
    else:
        run_units(units, folder, attempts=work["attempts"], say=_say, sleep=time.sleep)


def _resolve_outputs(session: Session, found: Sequence[Resolved]) -> dict[str, str | bool]:
    args = {one.name: one.build_arg.lower() for one in session.project.companion}
    values: dict[str, str | bool] = {args[one.name]: one.value for one in found}
    return {**values, "all_resolved": all(one.fixed for one in found), "resolved": _compact({"companions": found})}


def _plan_outputs(plan: Plan) -> dict[str, str | bool]:
    return {
        "need_base": plan.base.build,
        "base_tag": plan.base.tag,
        "need_variants": any(one.build for one in plan.variants),
        "variant_tags": " ".join(one.tag for one in plan.variants),
        "publish_tags": " ".join(tag for one in plan.variants for tag in one.publish),
        "plan": _compact(plan),
    }


def _append(session: Session, outputs: dict[str, str | bool]) -> None:
    from .ghoutput import append

    append(session.env, outputs)


def _print_plan(plan: Plan) -> None:
    for one in plan.targets:
        click.echo(f"{one.name:8} {plan.image}:{one.tag}")
        click.echo(f"{'':8} {'build' if one.build else 'keep'}: {one.reason}")
        if one.publish:
            click.echo(f"{'':8} publish as {', '.join(one.publish)}")
    for companion in plan.companions:
        click.echo(f"{'':8} {companion.name} {companion.value}")


def _print_json(value: object) -> None:
    import msgspec

    click.echo(json.dumps(msgspec.to_builtins(value), indent=2))


def _compact(value: object) -> str:
    """Encode as JSON, on one line, in ASCII."""
    import msgspec

    return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))


def _say(text: str) -> None:
    say_error(PROG, text)
