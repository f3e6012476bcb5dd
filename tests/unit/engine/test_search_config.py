"""Whether this engine searches as a new process would, by mempalace's own digest."""

from __future__ import annotations

from mempalace_broker.engine.search_config import fingerprint, is_outdated


class Config:
    """As MempalaceConfig: reads the file when it is made."""

    file = "one"

    def __init__(self, palace_path: str = "") -> None:
        self.read = f"{type(self).file} {palace_path}"

    @property
    def search_config_fingerprint(self) -> str:
        if "broken" in self.read:
            raise ValueError("broken")
        return self.read


class Changed(Config):
    pass


def test_a_changed_file_makes_the_engine_outdated() -> None:
    Changed.file = "one"
    config = Changed("/p")
    assert fingerprint(config) == "one /p"
    assert not is_outdated(config, "/p")
    Changed.file = "two"
    assert is_outdated(config, "/p")
    Changed.file = "broken"
    assert not is_outdated(config, "/p")


def test_what_can_not_be_told_is_none() -> None:
    Changed.file = "broken"
    assert fingerprint(Changed("/p")) is None
    assert fingerprint(object()) is None  # before 3.9
    assert not is_outdated(object(), "/p")
