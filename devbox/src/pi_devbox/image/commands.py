"""The command lines that build and publish, for docker's buildx and for buildah, which needs no daemon. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..errors import ConfigError
from .address import split_name
from .model import Plan, Target

Builder = Literal["buildx", "buildah"]
_CONTEXT = "."  # the repository's root


class Command(NamedTuple):
    """One command line; with `may_fail` its failure is ignored."""

    argv: tuple[str, ...]
    may_fail: bool = False


Unit = tuple[Command, ...]  # commands that are retried together


def choose(wanted: str, *, buildx: bool, buildah: bool) -> Builder:
    """Choose the builder. `wanted` is "auto" or one of them; `buildx` and `buildah`: whether they work here."""
    if wanted == "buildx" or (wanted == "auto" and buildx):
        return "buildx"
    if wanted == "buildah" or (wanted == "auto" and buildah):
        return "buildah"
    raise ConfigError(
        "found neither docker with buildx and a running engine, nor buildah.",
        hint="install buildah (Debian: apt install buildah), or start docker; --dry-run needs neither with --builder",
    )


def build_units(builder: Builder, plan: Plan, target: Target, *, push: bool) -> list[Unit]:
    """The commands that build one target, and with `push` send it under its fingerprint's tag."""
    if not push and len(plan.platforms) > 1:
        raise ConfigError(
            f"an image for {', '.join(plan.platforms)} can only be pushed.", hint="plan with one --platform, or --push"
        )
    return (_buildx if builder == "buildx" else _buildah)(plan, target, push)


def publish_units(builder: Builder, plan: Plan, target: Target) -> list[Unit]:
    """The commands that give an image in the registry the tags that users pull, for all platforms at once."""
    plain = _plain(plan)
    source, tags = f"{plan.image}:{target.tag}", [f"{plan.image}:{tag}" for tag in target.publish]
    if builder == "buildx":
        named = [word for tag in tags for word in ("--tag", tag)]
        return [(Command(("docker", "buildx", "imagetools", "create", *named, source)),)]
    index = _index(target)
    return [
        (
            Command(("buildah", "manifest", "rm", index), may_fail=True),
            Command(("buildah", "manifest", "create", index)),
            Command(("buildah", "manifest", "add", "--all", *plain, index, f"docker://{source}")),
        ),
        *((Command(("buildah", "manifest", "push", "--all", *plain, index, f"docker://{tag}")),) for tag in tags),
        (Command(("buildah", "manifest", "rm", index), may_fail=True),),
    ]


def _buildx(plan: Plan, target: Target, push: bool) -> list[Unit]:
    fresh = ["--no-cache", *(["--pull"] if target.name == "base" else [])] if target.fresh else []
    argv = [
        *("docker", "buildx", "build", *_what(plan, target), *fresh),
        *("--tag", f"{plan.image}:{target.tag}", "--push" if push else "--load", _CONTEXT),
    ]
    return [(Command(tuple(argv)),)]


def _buildah(plan: Plan, target: Target, push: bool) -> list[Unit]:
    image, index, plain = f"{plan.image}:{target.tag}", _index(target), _plain(plan)
    fresh = ["--no-cache", *(["--pull-always"] if target.name == "base" else [])] if target.fresh else []
    build = ("buildah", "build", *plain, *_what(plan, target), *fresh)
    if not push:
        return [(Command((*build, *([] if fresh else ["--layers"]), "--tag", image, _CONTEXT)),)]
    forget = Command(("buildah", "manifest", "rm", index), may_fail=True)  # an earlier attempt may have left it
    # No --layers: on a base without platforms (FROM scratch) buildah 1.28 takes one platform's layers for the other's.
    return [
        (forget, Command((*build, "--manifest", index, _CONTEXT))),
        (Command(("buildah", "manifest", "push", "--all", *plain, index, f"docker://{image}")),),
        (forget,),
    ]


def _plain(plan: Plan) -> list[str]:
    """No TLS for a registry on this machine, which is docker's default."""
    return ["--tls-verify=false"] if split_name(plan.image)[0].startswith("http:") else []


def _what(plan: Plan, target: Target) -> list[str]:
    args = [word for name, value in sorted(target.args.items()) for word in ("--build-arg", f"{name}={value}")]
    return ["--platform", ",".join(plan.platforms), "--file", target.dockerfile, *args]


def _index(target: Target) -> str:
    """buildah's local name for the index of all platforms."""
    return f"localhost/pi-devbox-index:{target.tag}"
