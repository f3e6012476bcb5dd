"""The facts that pass between the steps: what was resolved, what a registry knows, what is planned."""

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
    """A companion at a fixed place, or, with `how` "name", at its moving ref because nobody could say where that is."""

    name: str
    ref: Ref
    value: Ref  # what the build argument gets: commit id, version, or the ref's name
    how: How
    note: str = ""

    @property
    def fixed(self) -> bool:
        """Does `value` name the same content forever?"""
        return self.how != "name"


class TagFact(msgspec.Struct, frozen=True):
    """What is known about one tag; `note` says why nothing is."""

    state: Literal["present", "absent", "unknown"]
    note: str = ""


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One image. `fresh`: no layer of an earlier build may be used. `publish`: tags that users pull."""

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
    """Everything that building and publishing need to know; one job writes it, others read it."""

    schema: int
    image: ImageName
    platforms: list[Platform]
    base: Target
    variants: list[Target]
    companions: list[Resolved]
    warnings: list[str]

    @property
    def targets(self) -> list[Target]:
        """The base first."""
        return [self.base, *self.variants]


@dataclass(frozen=True)
class Sources:
    """What lies in the checkout: the project's description, and the entries of its two recipes."""

    project: Project
    base: Sequence[Entry]
    variant: Sequence[Entry]


@dataclass(frozen=True)
class Wish:
    """What the caller decides.

    Attributes:
        image: its full name. nonce: marks tags of what is not at a fixed place; must be new for every plan.
        force: build everything anew. release: "v1.2.3", or "" where nothing is released.
    """

    image: str
    nonce: str
    force: bool = False
    release: str = ""
