"""Imports the modules of this package from where they certainly are: a third of Python's own cost of each.

Python looks for a module in folders, reads their names, tries suffixes, and opens what it found through several layers:
0.1 ms for each module, and `mp-shim` has thirty. A module of ours lies beside its neighbours, with its bytecode where
Python itself puts it, so one stat of the source and one read of the bytecode will do. Whatever is not exactly as
expected (no bytecode yet, an edited source, a zip file, another kind of loader) is left to Python's own import.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import marshal
import os
import sys

try:  # without the package around it, a millisecond of a shim's start
    from _frozen_importlib import ModuleSpec
    from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader
except ImportError:  # not CPython
    from importlib.machinery import ModuleSpec, SourceFileLoader
    from importlib.util import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

_CACHE = "/__pycache__/"
_HEAD = 16  # bytes before the code: magic number, flags, time and size of the source
_MOST = 64 * 1024  # bytes of bytecode that one read takes: more would be allocated anew, which costs as much


class _Loader(SourceFileLoader):
    """Python's own loader, with the code at hand."""

    code: CodeType

    def exec_module(self, module: ModuleType) -> None:
        code = self.code
        del self.code  # a module does not need it any more
        exec(code, module.__dict__)


class QuickFinder:
    """Finds the modules of one package; for all others, and in doubt, it finds nothing.

    Args:
        package: its name. suffix: of bytecode files: ".cpython-311.pyc".
    """

    def __init__(self, package: str, suffix: str) -> None:
        self._prefix = package + "."
        self._suffix = suffix

    def find_spec(self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """As every finder in `sys.meta_path`."""
        if not name.startswith(self._prefix) or path is None or len(path) != 1:
            return None
        folder, tail = path[0], name.rpartition(".")[2]
        return self._spec(name, folder, tail) or self._spec(name, f"{folder}/{tail}", "__init__")

    def _spec(self, name: str, folder: str, tail: str) -> ModuleSpec | None:
        source, cached = f"{folder}/{tail}.py", f"{folder}{_CACHE}{tail}{self._suffix}"
        code = _code(source, cached)
        if code is None:
            return None
        loader = _Loader(name, source)
        loader.code = code
        is_package = tail == "__init__"
        spec = ModuleSpec(name, loader, origin=source, is_package=is_package)
        spec.has_location = True
        spec.cached = cached
        if is_package:
            spec.submodule_search_locations = [folder]
        return spec


def _code(source: str, cached: str) -> CodeType | None:
    """The code of a module if its bytecode is there and up to date, as Python judges that."""
    try:
        fd = os.open(cached, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, _MOST)
        finally:
            os.close(fd)
        info = os.stat(source)
        stamp = (info.st_size & 0xFFFFFFFF) << 32 | int(info.st_mtime) & 0xFFFFFFFF
        if len(data) == _MOST or data[:_HEAD] != MAGIC_NUMBER + bytes(4) + stamp.to_bytes(8, "little"):
            return None
        code: CodeType = marshal.loads(memoryview(data)[_HEAD:])
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return code


def import_quickly() -> None:
    """Import the rest of this package so, if it is installed as folders of files with their bytecode beside them."""
    spec = sys.modules[__name__.rpartition(".")[0]].__spec__
    if spec is None or type(spec.loader) is not SourceFileLoader or not spec.origin or not spec.cached:
        return
    head = spec.origin.removesuffix("/__init__.py") + _CACHE + "__init__"
    if spec.cached.startswith(head):
        sys.meta_path.insert(0, QuickFinder(spec.name, spec.cached.removeprefix(head)))
