"""Decide which images must be built, under which tags, and why. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from ..errors import ConfigError
from . import dockerfile
from .fingerprint import UNRESOLVED, Entry, Fact, fingerprint, tag
from .model import SCHEMA, Choices, Plan, Resolved, Sources, TagFact, Target
from .recipe import Companion, Project, Recipe, arguments_of

_FINAL = re.compile(r"v?([0-9]+)\.([0-9]+)\.([0-9]+)")


def draft(sources: Sources, resolved: Sequence[Resolved], choices: Choices) -> Plan:
    """Make the plan before the registry is asked: every target is to be built."""
    check_dockerfiles(sources)
    base = _base(sources, resolved, choices)
    variants = [_variant(sources, number, base, resolved, choices) for number in range(len(sources.project.variants))]
    return Plan(
        schema=SCHEMA,
        image=choices.image,
        platforms=list(sources.project.image.platforms),
        base=base,
        variants=variants,
        companions=list(resolved),
        warnings=[warning(one) for one in resolved if not one.fixed],
    )


def decide(plan: Plan, facts: Mapping[str, TagFact], *, force: bool) -> Plan:
    """Apply the registry's facts to the plan. Only a tag that certainly exists saves a build."""
    base = _decided(plan.base, facts, "forced" if force else "")
    variants = [_decided(one, facts, "its base is built anew" if base.build else "") for one in plan.variants]
    unknown = [
        f"{name}: the registry gave no answer: {fact.note}" for name, fact in facts.items() if fact.state == "unknown"
    ]
    return msgspec.structs.replace(plan, base=base, variants=variants, warnings=[*plan.warnings, *unknown])


def settle_latest(plan: Plan, release: str, listed: Sequence[str], unknown: str) -> Plan:
    """Take `latest` from a release that is not the newest in the registry, or if its tags are `unknown`: a reason."""
    if not is_final(release):
        return plan
    suffixes = {one.publish[0].removeprefix(release) for one in plan.variants}
    names = {tag.removesuffix(suffix) for tag in listed for suffix in suffixes}
    newest = max((name for name in names if is_final(name)), key=_version, default=release)
    if unknown:
        why = f"the registry did not list its tags ({unknown}), so {release} may be an old release"
    elif _version(newest) > _version(release):
        why = f"{release} is older than {newest}"
    else:
        return plan
    variants = [msgspec.structs.replace(one, publish=one.publish[:1]) for one in plan.variants]
    return msgspec.structs.replace(plan, variants=variants, warnings=[*plan.warnings, f"{why}: latest is not moved"])


def is_final(release: str) -> bool:
    """Whether it is N.N.N, which v1.0.0rc1 is not."""
    return _FINAL.fullmatch(release) is not None


def _version(release: str) -> list[int]:
    return [int(number) for number in re.findall("[0-9]+", release)]


def warning(one: Resolved) -> str:
    """The warning about a companion that could not be resolved."""
    return f"{one.name}: {one.ref} could not be resolved ({one.note}): its name is used, and forces a build"


def base_tag(sources: Sources, resolved: Sequence[Resolved], choices: Choices) -> str:
    """Return the tag of the base alone."""
    check_dockerfiles(sources)
    return _base(sources, resolved, choices).tag


def read_plan(text: bytes | str, where: str) -> Plan:
    """Read a plan that `plan --json` wrote. Raise ConfigError if it is not one."""
    try:
        plan = msgspec.json.decode(text, type=Plan)
    except ValueError as exc:
        raise ConfigError(f"{where} is not a plan: {exc}.", hint="write it with `pi-devbox image plan --json`") from exc
    if plan.schema != SCHEMA:
        raise ConfigError(
            f"{where} is a plan of schema {plan.schema}, this program needs {SCHEMA}.",
            hint="use one version of pi-devbox in all jobs of a workflow",
        )
    return plan


def check_unchanged(plan: Plan, sources: Sources) -> None:
    """Raise ConfigError unless the plan was made from these very files: images are tagged with their fingerprint."""
    image = msgspec.structs.replace(sources.project.image, platforms=plan.platforms)
    sources = replace(sources, project=msgspec.structs.replace(sources.project, image=image))
    again = draft(sources, plan.companions, Choices(image=plan.image, nonce=_nonce_of(plan)))
    if [one.name for one in plan.targets] != [one.name for one in again.targets]:
        raise ConfigError("the plan has other variants than devbox/image/companions.toml.", hint="plan again")
    for planned, found in zip(plan.targets, again.targets, strict=True):
        if planned.fingerprint != found.fingerprint or planned.tag != found.tag:
            raise ConfigError(
                f"{planned.name}: planned as {planned.tag}, but the files here make it {found.tag}.",
                hint="check out the commit that was planned, or plan again",
            )


def check_findable(plan: Plan) -> None:
    """Raise ConfigError for tags that no earlier run can have built, in a plan that was made just for publishing."""
    if loose := [one.tag for one in plan.variants if UNRESOLVED in one.tag]:
        raise ConfigError(
            f"{', '.join(loose)} can't have been built: with an unresolved companion each plan has tags of its own.",
            hint="`pi-devbox image plan --json > plan.json`, then build and publish with `--plan plan.json`",
        )


def check_dockerfiles(sources: Sources) -> None:
    """Raise ConfigError unless everything copied is an input, and every argument is declared."""
    project = sources.project
    _check(project.base, sources.base, _wanted_arguments(project, "base"))
    wanted = {name for one in project.variants for name in _wanted_arguments(project, one.name)}
    _check(project.variant, sources.variant, wanted)


def release_tags(release: str, suffix: str) -> list[str]:
    """The tags that users pull: the release, then "latest" if that is N.N.N; "edge" without one."""
    if not release:
        return [f"edge{suffix}"]
    return [f"{release}{suffix}", *([f"latest{suffix}"] if is_final(release) else [])]


def _base(sources: Sources, resolved: Sequence[Resolved], choices: Choices) -> Target:
    project = sources.project
    companions = [one for one in project.companion if one.where == "base"]
    args = {**project.base.args, **_arguments(companions, resolved)}
    facts = [*_facts(project.base.args), *_companion_facts(companions, resolved), *_platforms(project)]
    return _target("base", project.base, fingerprint(sources.base, facts), args, _loose(companions, resolved), choices)


def _variant(sources: Sources, number: int, base: Target, resolved: Sequence[Resolved], choices: Choices) -> Target:
    project, recipe = sources.project, sources.project.variant
    variant = project.variants[number]
    companions = [one for one in project.companion if one.is_in(variant.name)]
    fixed = {**recipe.args, **variant.args}
    facts = [*_facts(fixed), *_companion_facts(companions, resolved), *_platforms(project), Fact("base", "", base.tag)]
    args = {**fixed, **_arguments(companions, resolved), str(recipe.base_arg): f"{choices.image}:{base.tag}"}
    digest = fingerprint(sources.variant, facts)
    made = _target(variant.name, recipe, digest, args, _loose(companions, resolved), choices)
    return msgspec.structs.replace(made, publish=release_tags(choices.release, variant.suffix))


def _target(name: str, recipe: Recipe, digest: str, args: dict[str, str], loose: list[str], choices: Choices) -> Target:
    return Target(
        name=name,
        tag=tag(name, digest, choices.nonce if loose else ""),
        fingerprint=digest,
        build=True,
        reason=f"not resolved: {', '.join(loose)}" if loose else "",
        fresh=choices.force or bool(loose),  # a cached layer holds what "main" was then
        dockerfile=recipe.dockerfile,
        args=args,
    )


def _decided(target: Target, facts: Mapping[str, TagFact], cause: str) -> Target:
    fact = facts.get(target.tag, TagFact("unknown"))
    if target.reason or cause:
        return msgspec.structs.replace(target, build=True, reason=target.reason or cause)
    reasons = {
        "present": "the registry has it",
        "absent": "the registry does not have it",
        "unknown": "it is unknown whether the registry has it",
    }
    return msgspec.structs.replace(target, build=fact.state != "present", reason=reasons[fact.state])


def _resolved_of(companion: Companion, resolved: Sequence[Resolved]) -> Resolved:
    found = [one for one in resolved if one.name == companion.name]
    if len(found) != 1 or found[0].ref != companion.ref:
        raise ConfigError(
            f"companion {companion.name} at {companion.ref} is not among the resolved ones.",
            hint="resolve again: `pi-devbox image resolve --json`",
        )
    return found[0]


def _arguments(companions: Iterable[Companion], resolved: Sequence[Resolved]) -> dict[str, str]:
    return {one.build_arg: _resolved_of(one, resolved).value for one in companions}


def _loose(companions: Iterable[Companion], resolved: Sequence[Resolved]) -> list[str]:
    return [one.name for one in companions if not _resolved_of(one, resolved).fixed]


def _companion_facts(companions: Iterable[Companion], resolved: Sequence[Resolved]) -> list[Fact]:
    return [
        fact
        for one in companions
        for fact in (
            Fact("companion", one.name, _resolved_of(one, resolved).value),
            Fact("companion-url", one.name, one.url),
            Fact("companion-arg", one.name, one.build_arg),
        )
    ]


def _facts(args: Mapping[str, str]) -> list[Fact]:
    return [Fact("argument", name, value) for name, value in args.items()]


def _platforms(project: Project) -> list[Fact]:
    return [Fact("platform", one, "") for one in project.image.platforms]


def _wanted_arguments(project: Project, where: str) -> set[str]:
    return {name for name in arguments_of(project, where) if name}


def _check(recipe: Recipe, entries: Sequence[Entry], wanted: set[str]) -> None:
    text = next((one.content for one in entries if one.path == recipe.dockerfile.encode()), b"").decode(
        "utf-8", "replace"
    )
    if loose := dockerfile.uncovered(dockerfile.copied(text), recipe.paths):
        raise ConfigError(
            f"{recipe.dockerfile} copies something that no tag depends on: {', '.join(loose)}.",
            hint="add it to `inputs` in devbox/image/companions.toml",
        )
    if unknown := wanted - dockerfile.arguments(text):
        raise ConfigError(
            f"{recipe.dockerfile} has no ARG {', '.join(sorted(unknown))}, which companions.toml sets.",
            hint="declare it there, or correct devbox/image/companions.toml",
        )


def _nonce_of(plan: Plan) -> str:
    """The nonce in a plan's tags, or "none"."""
    marked = [one.tag.rpartition("-")[2] for one in plan.targets if UNRESOLVED in one.tag]
    return marked[0] if marked else "none"
