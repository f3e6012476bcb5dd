"""The format of `devbox/image/companions.toml`, the list of all that the image is made of."""

from __future__ import annotations

import tomllib
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from ..errors import ConfigError

Name = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,40}\Z")]
# A subset of what git allows: never an option, a glob or revision syntax.
Ref = Annotated[str, msgspec.Meta(pattern=r"\A(?!.*\.\.)(?!.*//)[A-Za-z0-9_][A-Za-z0-9._/+-]{0,200}\Z")]
BuildArg = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z_][A-Z0-9_]*\Z")]
Variable = BuildArg
Value = Annotated[str, msgspec.Meta(pattern=r"\A[ -~]{0,300}\Z")]
Path = Annotated[str, msgspec.Meta(pattern=r"\A(?!.*\.\.)[A-Za-z0-9_.][A-Za-z0-9_./ +-]*\Z")]
Platform = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?\Z")]
ImageName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+\Z")]
Suffix = Annotated[str, msgspec.Meta(pattern=r"\A(-[a-z0-9]+)*\Z")]
Package = Annotated[str, msgspec.Meta(pattern=r"\A(@[a-z0-9._-]+/)?[a-z0-9][a-z0-9._-]*\Z")]
SCHEMES = ("https", "http", "ssh", "git", "file")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base class: an unknown key in the file is an error, not a setting without effect."""


class Image(_Table, frozen=True):
    """Where the image is published by default, and for which platforms."""

    name: ImageName
    platforms: Annotated[list[Platform], msgspec.Meta(min_length=1)]


class Recipe(_Table, frozen=True):
    """A Dockerfile and the paths it copies from; paths are relative to the repository's root."""

    dockerfile: Path
    inputs: list[Path] = []
    args: dict[BuildArg, Value] = {}
    base_arg: BuildArg | None = None

    @property
    def paths(self) -> list[str]:
        """All paths that the tag must depend on."""
        return [self.dockerfile, *self.inputs]


class Variant(_Table, frozen=True):
    """One image built on the base; `suffix` ends its published tags."""

    name: Name
    suffix: Suffix = ""
    args: dict[BuildArg, Value] = {}


class Companion(_Table, frozen=True):
    """A foreign repository or package in the image, at a ref that may move."""

    name: Name
    kind: Literal["github", "gitea", "git", "npm"]
    url: str  # of the git repository; for npm the name of the package
    ref: Ref
    where: Literal["base", "variant"]
    build_arg: BuildArg
    variants: list[Name] = []

    def is_in(self, variant: str) -> bool:
        """Whether this variant contains it."""
        return self.where == "variant" and (not self.variants or variant in self.variants)


class Project(_Table, frozen=True):
    """The whole file."""

    image: Image
    base: Recipe
    variant: Recipe
    variants: Annotated[list[Variant], msgspec.Meta(min_length=1)]
    companion: list[Companion] = []
    tokens: dict[str, Variable] = {}  # host[:port] -> environment variable


def parse(text: str, where: str) -> Project:
    """Parse the file's content. ConfigError names `where` and the mistake."""
    try:
        project = msgspec.convert(tomllib.loads(text), Project)
        _check(project)
    except (tomllib.TOMLDecodeError, ValueError) as exc:  # msgspec's ValidationError is a ValueError
        raise ConfigError(
            f"{where}: {exc}.", hint=f"correct {where}; its format is in pi_devbox/image/recipe.py"
        ) from exc
    return project


def _check(project: Project) -> None:
    """Check what types can't express."""
    _unique("companion", [one.name for one in project.companion])
    _unique("variant", [one.name for one in project.variants])
    _unique("suffix", [one.suffix for one in project.variants])
    if not project.variant.base_arg:
        raise ValueError("[variant] needs base_arg: the build argument that gets the base's name")
    known = {one.name for one in project.variants}
    for one in project.companion:
        if one.kind == "npm":
            msgspec.convert(one.url, Package)
        else:
            _check_url(one)
        if strangers := set(one.variants) - known:
            raise ValueError(f"companion {one.name}: unknown variant {', '.join(sorted(strangers))}")
    for where in ("base", *known):
        _unique(f"build argument of {where}", arguments_of(project, where))


def arguments_of(project: Project, where: str) -> list[str]:
    """The names of all build arguments of the base, or of the variant of that name."""
    if where == "base":
        return [*project.base.args, *(one.build_arg for one in project.companion if one.where == "base")]
    variant = next(one for one in project.variants if one.name == where)
    companions = [one.build_arg for one in project.companion if one.is_in(where)]
    return [project.variant.base_arg or "", *project.variant.args, *variant.args, *companions]


def _check_url(companion: Companion) -> None:
    url = urlsplit(companion.url)
    who = f"companion {companion.name}"
    if url.scheme not in SCHEMES or any(char.isspace() or not char.isprintable() for char in companion.url):
        raise ValueError(f"{who}: url must begin with one of {', '.join(SCHEMES)}, without spaces")
    if url.password or (url.username and url.scheme != "ssh"):
        raise ValueError(f"{who}: no credentials in a url; name the variable of its token in [tokens]")
    if companion.kind in {"github", "gitea"}:
        parts = [part for part in url.path.split("/") if part]
        if url.scheme not in {"https", "http"} or len(parts) < 2 or url.query or url.fragment:
            raise ValueError(f"{who}: url of kind {companion.kind} must be https://HOST/OWNER/REPOSITORY")


def _unique(what: str, values: list[str]) -> None:
    doubles = sorted({value for value in values if values.count(value) > 1})
    if doubles:
        raise ValueError(f"{what} given twice: {', '.join(map(repr, doubles))}")
