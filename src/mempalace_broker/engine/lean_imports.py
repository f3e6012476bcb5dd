"""Spares the engine what mempalace's imports load and never use: a third of the time that it takes to start.

    deferred modules    HTTP clients, traces, JSON schemas of other embedders: a stand-in, which loads the module
                        itself as soon as anything in it is used
    override checks     chromadb has every method of its classes compared with the base's, signatures and all
    plugins             pydantic looks through every installed distribution for some
    fragments           mempalace 3.11 compiles the parts of its larger modules each time; Python keeps them compiled
    garbage             Python looks for some again and again, among hundreds of thousands of objects that stay

Nothing becomes unusable: whatever needs one of the modules gets it, later.
"""

from __future__ import annotations
import __future__

import builtins
import contextlib
import functools
import gc
import importlib
import operator
import os
import sys
from abc import ABCMeta
from collections.abc import Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Callable

# module -> functions and classes that others take from it by name when they are imported, and only call later
_DEFERRED: dict[str, tuple[str, ...]] = {
    "httpx": ("Limits", "Response"),
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter": ("OTLPSpanExporter",),
    "opentelemetry.sdk.trace": ("TracerProvider",),
    "opentelemetry.sdk.trace.export": ("BatchSpanProcessor",),
    "chromadb.utils.embedding_functions.schemas": ("validate_config_schema",),
}
_READY = "_mempalace_broker_ready"
_NO_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"
_FUTURES = functools.reduce(
    operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)

# -- deferred modules ----------------------------------------------------------------------------------


class _StandIn(ModuleType):
    """Stands for a module until one of its attributes is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name == _READY or _READY not in vars(self):  # the import system looks at what it makes
            raise AttributeError(name)
        return getattr(_load(self.__name__), name)


class _Finder(MetaPathFinder, Loader):
    """Finds stand-ins for modules that are installed and were not needed yet."""

    def __init__(self) -> None:
        self.needed: set[str] = set()

    def find_spec(self, fullname: str, path: Any = None, _target: Any = None) -> ModuleSpec | None:
        if fullname not in _DEFERRED or fullname in self.needed:
            return None
        real = PathFinder.find_spec(fullname, path)
        if real is None:
            return None
        spec = ModuleSpec(fullname, self, origin=real.origin)
        spec.submodule_search_locations = real.submodule_search_locations
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        stand_in = _StandIn(spec.name)
        for name in _DEFERRED[spec.name]:
            setattr(stand_in, name, _later(spec.name, name))
        return stand_in

    def exec_module(self, module: ModuleType) -> None:
        """Let the stand-in stand in; there is nothing to run yet."""
        vars(module)[_READY] = True


_finder = _Finder()


def _load(name: str) -> ModuleType:
    """The module itself, in place of its stand-in."""
    stand_in = sys.modules.get(name)
    if isinstance(stand_in, _StandIn):
        _finder.needed.add(name)
        del sys.modules[name]
        for taken in _DEFERRED[name]:
            vars(stand_in).pop(taken, None)  # whoever asks the stand-in from now on gets the real one
    return importlib.import_module(name)


def _later(module: str, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(_load(module), name)(*args, **kwargs)

    return call


# -- override checks -----------------------------------------------------------------------------------


def _skip_override_checks() -> None:
    """Mark methods as overriding without looking at those that they override."""
    try:
        checker: Any = importlib.import_module("overrides")
    except ImportError:
        return  # a chromadb without it
    if not {"override", "overrides", "EnforceOverrides"} <= set(vars(checker)):
        return

    def override(method: Any = None, **_: Any) -> Any:
        return override if method is None else method

    checker.override = checker.overrides = override
    checker.EnforceOverrides = _unchecked()


def _unchecked() -> type:
    class EnforceOverrides(metaclass=ABCMeta):  # noqa: B024 - its metaclass is what chromadb's classes need
        """As its namesake, without the checks."""

    return EnforceOverrides


# -- fragments -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def fragments_compiled_once(package: str) -> Iterator[None]:
    """Take what `package` compiles of its own files within the block from Python's cache of compiled modules."""
    stock = builtins.compile

    def compiled(
        source: Any, filename: Any, mode: str, flags: int = 0, dont_inherit: bool = False, *args: Any, **options: Any
    ) -> Any:
        if not dont_inherit:
            flags |= sys._getframe(1).f_code.co_flags & _FUTURES  # the caller's, not those of this module
        if mode == "exec" and not (flags or args or options) and _is_source(filename, package):
            with contextlib.suppress(OSError, ImportError):
                return SourceFileLoader(package, filename).get_code(package)
        return stock(source, filename, mode, flags, True, *args, **options)

    builtins.compile = compiled
    try:
        yield
    finally:
        builtins.compile = stock


def _is_source(filename: Any, package: str) -> bool:
    return isinstance(filename, str) and f"/{package}/" in filename and filename.endswith(".py")


# -- garbage -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Look for garbage neither within the block nor, later, among what was made in it: modules stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


# -- all of it -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """Let mempalace and chromadb be imported lean within the block; modules deferred there load whenever needed."""
    sys.meta_path.insert(0, _finder)
    had_none = os.environ.get(_NO_PLUGINS)
    os.environ[_NO_PLUGINS] = "__all__"
    _skip_override_checks()
    try:
        with fragments_compiled_once("mempalace"), _nothing_collected():
            yield
    finally:
        del os.environ[_NO_PLUGINS]  # for what mempalace starts
        if had_none is not None:
            os.environ[_NO_PLUGINS] = had_none
