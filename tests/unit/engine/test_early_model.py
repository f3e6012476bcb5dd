"""The model's session made ahead: it is taken only where mempalace would make the very same one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.early_model import EarlyModel
from mempalace_broker.engine.model_loading import ModelLoading

CPU = ["CPUExecutionProvider"]


class Runtime:
    """An onnxruntime; `made` are the sessions that it has made."""

    GraphOptimizationLevel = SimpleNamespace(ORT_ENABLE_ALL=99)

    class SessionOptions:
        """The options of a session; an entry can't be read back."""

        def __init__(self) -> None:
            self.log_severity_level = -1
            self.graph_optimization_level = 1
            self.intra_op_num_threads = 0

        def add_session_config_entry(self, name: str, value: str) -> None: ...

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []
        self.broken = ""

    def InferenceSession(self, path: str, sess_options: Any = None, providers: Any = None) -> object:
        if self.broken:
            raise RuntimeError(self.broken)
        session = object()
        self.made.append((session, path, sess_options, providers))
        return session

    def get_available_providers(self) -> list[str]:
        return CPU


class Function:
    """chromadb's embedding function: its `model` is made when it is first asked for."""

    def __init__(self, ort: Runtime, path: str, providers: list[str] = CPU, **options: Any) -> None:
        self.ort, self._path, self._providers, self._options = ort, path, providers, options
        self._model: object = None

    @property
    def model(self) -> object:
        if self._model is None:
            assert self.ort.get_available_providers() == CPU
            options: Any = self.ort.SessionOptions()
            options.log_severity_level = 3
            options.graph_optimization_level = self.ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            for name, value in self._options.items():
                if name == "entry":
                    options.add_session_config_entry(name, value)
                else:
                    setattr(options, name, value)
            self._model = self.ort.InferenceSession(self._path, providers=self._providers, sess_options=options)
        return self._model


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOME", str(tmp_path))
    model = tmp_path / ".cache" / "chroma" / "onnx_models" / "all-MiniLM-L6-v2" / "onnx" / "model.onnx"
    model.parent.mkdir(parents=True)
    model.touch()
    return str(model)


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    runtime = Runtime()
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    return runtime


def started(**config: Any) -> EarlyModel:
    early = EarlyModel()
    early.start(SimpleNamespace(**{"embedding_model": "minilm", **config}))
    return early


def test_the_same_session_is_made_once(ort: Runtime, path: str) -> None:
    early, function = started(), Function(ort, path)
    early.hand_over(function)
    assert [function.model] == [session for session, *_ in ort.made]
    assert function.ort is ort
    assert early.unused == ""


def test_it_has_as_many_threads_as_mempalace_is_configured_to_use(ort: Runtime, path: str) -> None:
    early, function = started(embedding_threads=2), Function(ort, path, intra_op_num_threads=2)
    early.hand_over(function)
    assert len(ort.made) == 1
    assert early.unused == ""


@pytest.mark.parametrize(
    "differs",
    [
        {"providers": ["CUDAExecutionProvider", *CPU]},
        {"intra_op_num_threads": 1},
        {"log_severity_level": 2},
        {"entry": "session.use_env_allocators"},
        {"path": "another.onnx"},
    ],
    ids=str,
)
def test_another_session_is_made_as_mempalace_wants_it(ort: Runtime, path: str, differs: dict[str, Any]) -> None:
    early, function = started(), Function(ort, **{"path": path, **differs})
    early.hand_over(function)
    assert len(ort.made) == 2
    assert function.model is ort.made[1][0]
    assert function.ort is ort
    assert early.unused == "mempalace makes another session"


def test_another_runtime_makes_its_own(ort: Runtime, path: str) -> None:
    early, other = started(), Runtime()
    function = Function(other, path)
    early.hand_over(function)
    assert function.model is other.made[0][0]
    assert early.unused


def test_a_session_that_can_not_be_made_is_left_to_mempalace(
    ort: Runtime, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    ort.broken = "protobuf parsing failed"
    early, function = started(), Function(ort, path)
    early.hand_over(function)
    assert "protobuf parsing failed" in capfd.readouterr().err
    ort.broken = ""
    assert function.model is ort.made[0][0]
    assert early.unused


def test_one_that_nobody_wants_is_let_go(ort: Runtime, path: str) -> None:
    early = started()
    made = early.let_go()
    assert made is not None
    assert made[0] is ort.made[0][0]
    assert early.let_go() is None
    assert early.unused
    assert path


def test_nothing_is_made_for_another_model(ort: Runtime, path: str) -> None:
    early, function = started(embedding_model="embeddinggemma"), Function(ort, path)
    early.hand_over(function)
    assert ort.made == []
    assert early.unused == "another embedding model is configured"


def test_nothing_is_made_while_the_model_is_missing(ort: Runtime, path: str) -> None:
    os.unlink(path)
    early = started()
    early.hand_over(Function(ort, path))
    assert ort.made == []
    assert early.unused == f"the model is missing in {os.path.dirname(path)}"


def test_a_mempalace_that_can_not_be_imported_starts_nothing(
    tmp_path: Path, ort: Runtime, path: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mempalace", None)
    loading = ModelLoading(str(tmp_path / "palace"))
    loading.wait_until_chosen()
    loading.wait()
    assert "nothing is loaded ahead" in capfd.readouterr().err
    assert ort.made == []
    assert path
