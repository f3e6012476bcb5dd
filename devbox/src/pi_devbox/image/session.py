"""The steps that the commands share: read the checkout, resolve, ask the registry, plan."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from ..errors import ConfigError
from . import answers
from . import plan as planning
from .asking import Pace
from .model import Choices, Plan, Resolved, Sources
from .recipe import ImageName, Platform, Project, parse
from .registry import facts_from, list_tags, look_up
from .resolve import Access, resolve
from .retry import LookupFailed, Policy
from .tree import read_inputs, untracked, write_inputs
from .web import Web

T = TypeVar("T")
COMPANIONS = Path("devbox", "image", "companions.toml")


class Companions(msgspec.Struct):
    """The output of `resolve --json`; other keys, as of a plan, are ignored."""

    companions: list[Resolved]


@dataclass(frozen=True)
class Session:
    """One run of a command.

    Attributes:
        root: of the checkout. project: its companions.toml. timeout: seconds for one companion or tag.
        env: the environment.
    """

    root: Path
    project: Project
    timeout: float
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def resolve(self) -> list[Resolved]:
        """Resolve all companions over the network."""
        return self._ask(resolve, self.project)

    @functools.cached_property
    def sources(self) -> Sources:
        """The inputs of both recipes, read once."""
        project = self.project
        return Sources(
            project, read_inputs(self.root, project.base.paths), read_inputs(self.root, project.variant.paths)
        )

    @contextlib.contextmanager
    def context(self) -> Iterator[Path]:
        """Make a folder with these inputs and nothing else: what the tags depend on is what is built."""
        with tempfile.TemporaryDirectory(prefix="pi-devbox-") as made:
            write_inputs([*self.sources.base, *self.sources.variant], Path(made))
            yield Path(made)

    def untracked(self) -> list[str]:
        """The files among the inputs that git does not know, and that are not built therefore."""
        return untracked(self.root, [*self.project.base.paths, *self.project.variant.paths])

    def choices(self, image: str = "", release: str = "", *, force: bool = False) -> Choices:
        """The caller's choices; `image` defaults to $IMAGE, then to companions.toml's name."""
        name = image or self.env.get("IMAGE", "") or self.project.image.name
        return Choices(image=_image_name(name), nonce=secrets.token_hex(6), force=force, release=release)

    def plan(self, resolved: Sequence[Resolved], choices: Choices, facts_file: Path | None) -> Plan:
        """Make a draft, ask the registry about images that need not be built anyway, and decide."""
        draft = planning.draft(self.sources, resolved, choices)
        tags = [] if choices.force else [one.tag for one in draft.targets if not one.reason]
        listed, reason = self._listed(draft, choices, facts_file)
        facts = facts_from(listed, tags) if facts_file is not None else self._ask(look_up, draft.image, tags)
        plan = planning.decide(draft, facts, force=choices.force)
        return planning.settle_latest(plan, choices.release, listed, reason)

    def _listed(self, draft: Plan, choices: Choices, facts_file: Path | None) -> tuple[list[str], str]:
        """All tags of the registry where they matter, and why they are unknown."""
        if facts_file is not None:
            return read_tags(facts_file), ""
        if not planning.is_final(choices.release):
            return [], ""
        try:
            return self._ask(list_tags, draft.image), ""
        except LookupFailed as exc:
            return [], exc.reason

    def _ask(self, question: Callable[..., Coroutine[None, None, T]], *args: object) -> T:
        """Ask over the network; `question` gets the means as its last argument."""

        async def work() -> T:
            async with Web() as web:
                return await question(*args, self._access(web))

        return asyncio.run(work())

    def _access(self, web: Web) -> Access:
        policy = Policy(total=self.timeout, each=min(Policy.each, self.timeout))
        return Access(web=web, env=self.env, tokens=self.project.tokens, pace=Pace(policy), now=time.time)


def open_session(root: Path | None, timeout: float, platforms: Sequence[str] = ()) -> Session:
    """Read devbox/image/companions.toml of the checkout at `root`, or of the one around the current directory."""
    where = (root or _find_root()).resolve()
    path = where / COMPANIONS
    try:
        project = parse(_read(path).decode("utf-8"), str(path))
        if platforms:
            image = msgspec.structs.replace(project.image, platforms=msgspec.convert(list(platforms), list[Platform]))
            project = msgspec.structs.replace(project, image=image)
    except ValueError as exc:
        raise ConfigError(
            f"{path} or --platform: {exc}.", hint="correct it; a platform looks like linux/amd64"
        ) from exc
    return Session(where, project, timeout)


def read_resolved(path: Path) -> list[Resolved]:
    """Read the output of an earlier `resolve --json`."""
    try:
        return msgspec.json.decode(_read(path), type=Companions).companions
    except ValueError as exc:
        raise ConfigError(f"{path}: {exc}.", hint="write it with `pi-devbox image resolve --json`") from exc


def read_tags(path: Path) -> list[str]:
    """Read a list of all tags, the output of `skopeo list-tags` or a registry's `tags/list`."""
    try:
        return answers.tags(_read(path))
    except LookupFailed as exc:
        raise ConfigError(f"{path}: {exc.reason}.", hint="write it with `skopeo list-tags`") from exc


def read_plan(path: Path | None, env: Mapping[str, str]) -> Plan | None:
    """Read the plan in a file or in $PI_DEVBOX_PLAN; None without either. An empty variable is a ConfigError."""
    if path is not None:
        return planning.read_plan(_read(path), str(path))
    text = env.get("PI_DEVBOX_PLAN")
    if text == "":  # a plan made here would differ from that of the other jobs
        raise ConfigError(
            "$PI_DEVBOX_PLAN is empty: the job that plans passed nothing on.",
            hint="look for a dropped output in that job's log (it must hold no secret's text), or unset the variable",
        )
    return None if text is None else planning.read_plan(text, "$PI_DEVBOX_PLAN")


def _find_root() -> Path:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / COMPANIONS).is_file():
            return folder
    raise ConfigError(f"no {COMPANIONS} in {here} or above it.", hint="run it in a checkout, or name it with --root")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path} can't be read: {exc.strerror}.", hint="name an existing file") from exc


def _image_name(name: str) -> str:
    try:
        return msgspec.convert(name, ImageName)
    except ValueError as exc:
        raise ConfigError(f"{name!r} is not an image name.", hint="write registry.example.org/owner/name") from exc
