"""Fixtures that every test may use, those of the devbox too; see tests/harness.py for what a world is."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from mempalace_broker.system import private, program_folders
from tests import harness
from tests.harness import World

settings.register_profile("busy", deadline=None)  # how long one example takes says nothing on a busy machine
settings.load_profile("busy")

# quick ones first; within a suite the order is random
_ORDER = (
    ("tests", "unit"),
    ("tests", "sim"),
    ("tests", "proc"),
    ("tests", "net"),
    ("tests", "security"),
    ("devbox", "tests"),
)
_FAILED = pytest.StashKey[bool]()


def pytest_configure() -> None:
    """Let programs that tests start heed signals that nohup, or a shell's `&`, has a run ignore: they inherit it."""
    for number, handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort what pytest-randomly has shuffled by suite."""

    def rank(item: pytest.Item) -> int:
        suite = item.path.relative_to(item.config.rootpath).parts[:2]
        return _ORDER.index(suite) if suite in _ORDER else len(_ORDER)

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Leave word for the teardown of `world` whether the test itself failed."""
    report = yield
    if call.when == "call":
        item.stash[_FAILED] = report.failed
    return report


@pytest.fixture(autouse=True)
def _no_real_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Code under test that is given no private folder finds no home, never that of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:  # the fixture `monkeypatch` would be undone later than tests expect
        for module in (private, program_folders):
            patch.setattr(module, "private_home", lambda: str(tmp_path_factory.getbasetemp() / "no-home"))
        yield


@pytest.fixture(params=harness.versions(harness.VERSIONS, []))
def engine(request: pytest.FixtureRequest) -> str:
    """ "3.4.0", then "newest"; skipped where it is not set up, failed in CI."""
    version: str = request.param
    harness.require_engine(version)
    return version


@pytest.fixture
def world(engine: str, request: pytest.FixtureRequest) -> Iterator[World]:
    """A world of its own for the test, with that engine; closed and checked afterwards."""
    made = World(engine)
    yield made
    if request.node.stash.get(_FAILED, True):
        made.__exit__(AssertionError, AssertionError("the test failed"), None)
    else:
        made.close()
