"""Table [container] of broker.toml: what a shim on the far side of a kernel boundary goes by."""

from __future__ import annotations

import pytest

from mempalace_broker.errors import UsageError
from mempalace_broker.settings import load_container, load_settings

TOML = """
[broker]
idle_s = 5
[container]
ssh_host = "me@mac"
direct = "never"
[container.paths]
"/workspace/" = "/Users/me/work"
"/" = "/srv/"
"""


def test_the_table_and_its_paths() -> None:
    settings, paths = load_container(TOML, {})
    assert settings.text("ssh_host") == "me@mac"
    assert settings.text("ssh_command") == "mempalace-broker"
    assert settings.sources["direct"] == "broker.toml"
    assert paths == {"/workspace": "/Users/me/work", "/": "/srv"}


def test_a_variable_wins_and_says_so() -> None:
    settings, _ = load_container(TOML, {"MEMPALACE_BROKER_DIRECT": "always"})
    assert settings.text("direct") == "always"
    assert "MEMPALACE_BROKER_DIRECT" in settings.sources["direct"]


def test_the_broker_does_not_mind_the_table() -> None:
    assert load_settings(TOML, {}).number("idle_s") == 5


def test_without_a_file_all_is_default() -> None:
    settings, paths = load_container(None, {})
    assert set(settings.sources.values()) == {"default"}
    assert paths == {}


@pytest.mark.parametrize(
    ("toml", "word"),
    [
        ("[container]\nssh_hots = 'x'", "ssh_hots"),
        ("[container]\ndirect = 'perhaps'", "perhaps"),
        ("[container]\ndirect = true", "text"),
        ("container = 7", "must be a table"),
        ("[container]\npaths = 'x'", "absolute folders"),
        ("[container.paths]\nwork = '/x'", "absolute folders"),
        ("[container.paths]\n'/work' = 'x'", "absolute folders"),
        ("[container", "not valid TOML"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_file(toml: str, word: str) -> None:
    with pytest.raises(UsageError) as error:
        load_container(toml, {}, toml_path="/r/broker.toml")
    assert word in error.value.message
    assert "/r/broker.toml" in error.value.message
    assert error.value.hint
