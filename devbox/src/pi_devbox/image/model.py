"""The data that the steps exchange: resolved companions, facts of a registry, plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from .fingerprint import Entry
from .recipe import BuildArg, ImageName, Name, Path, Platform, Project, Ref, Value

SCHEMA = 1
Tag = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
How = Literal["given", "api", "git", "npm", "name"]


class Resolved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A companion at a fixed commit or version; with `how` "name" at its moving ref, as all lookups failed."""

    name: str
    ref: Ref
    value: Ref  # the build argument: commit id, version, or the ref's name
    how: How
    note: str = ""

    @property
    def fixed(self) -> bool:
        """Whether `value` always names the same content."""
        return self.how != "name"


class TagFact(msgspec.Struct, frozen=True):
    """What is known about one tag; `note` says why it is unknown, or gives the digest."""

    state: Literal["present", "absent", "unknown"]
    note: str = ""


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One image. `fresh`: use no layer of an earlier build. `publish`: the tags that users pull."""

    name: Name
    tag: Tag
    fingerprint: Digest
    build: bool
    reason: str
    fresh: bool
    dockerfile: Path
    args: dict[BuildArg, Value]
    publish: list[Tag] = []


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that building and publishing need to know; one job writes it, others read it."""

    schema: int
    image: ImageName
    platforms: list[Platform]
    base: Target
    variants: list[Target]
    companions: list[Resolved]
    warnings: list[str]

    @property
    def targets(self) -> list[Target]:
        """All images, the base first."""
        return [self.base, *self.variants]


@dataclass(frozen=True)
class Sources:
    """The inputs from the checkout: the project's description, and the entries of both recipes."""

    project: Project
    base: Sequence[Entry]
    variant: Sequence[Entry]


@dataclass(frozen=True)
class Choices:
    """The caller's choices.

    Attributes:
        image: its full name. nonce: marks the tags of images with an unresolved companion; new for every plan.
        force: build everything anew. release: "v1.2.3", or "" if this is not a release.
    """

    image: str
    nonce: str
    force: bool = False
    release: str = ""
