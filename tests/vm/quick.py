"""The real engine with a cheap embedding model, for a guest in which the real one takes half a minute a text.

All of mempalace and Chroma is real; only the network is replaced, by a table of random vectors: a text's vector is the
mean of its tokens', so equal texts have equal vectors and padding changes nothing.
"""

from __future__ import annotations

from tests.harness import World, engine_python
from tests.hooked import hooked

_HOOK = """
import importlib.machinery, sys

class Session:
    def __init__(self, *args, **more):
        import numpy
        self.table = numpy.random.default_rng(1).standard_normal((997, 384)).astype(numpy.float32)
    def run(self, names, fed):
        return [self.table[fed["input_ids"] % 997]]

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "onnxruntime":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            module.InferenceSession = Session
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder)
"""


def make_quick_engine(world: World) -> str:
    """Make a virtual environment over the real one; its interpreter's path below the world's root."""
    assert world.engine is not None
    python = hooked(world.root / "quick", engine_python(world.engine), _HOOK)
    return str(python.relative_to(world.root))
