"""config.toml and broker.toml: the settings that count in each, variables over both, and hostile files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.errors import UsageError
from mempalace_broker.settings import DirectMode
from mempalace_broker.settings_files import PrivateSettings, SharedSettings, settings_path
from mempalace_broker.system.private import VARIABLE

TOML = b"""
[broker]
idle_s = 5
[palaces."/srv/palace"]
idle_s = 7
env = { PGPASSWORD = "secret" }
[container]
ssh_host = "me@mac"
direct = "never"
[container.paths]
"/workspace/" = "/Users/me/work"
"/" = "/srv/"
"""


# --- config.toml


def test_the_table_and_its_paths() -> None:
    settings = PrivateSettings.parse(TOML).container({})
    assert settings.ssh_host == "me@mac"
    assert settings.ssh_command == "mempalace-broker"
    assert settings.sources["direct"] == "config.toml"
    assert settings.paths == {"/workspace": "/Users/me/work", "/": "/srv"}


def test_a_variable_wins_and_says_so() -> None:
    settings = PrivateSettings.parse(TOML).container({"MEMPALACE_BROKER_DIRECT": "always"})
    assert settings.direct is DirectMode.ALWAYS
    assert "MEMPALACE_BROKER_DIRECT" in settings.sources["direct"]


def test_one_palace_has_settings_of_its_own() -> None:
    settings = PrivateSettings.parse(TOML)
    for palace, idle_s in (("", 5), ("/elsewhere", 5), ("/srv/palace", 7)):
        assert settings.broker({}, palace).idle_s == idle_s
    found = settings.broker({}, "/srv/palace")
    assert found.sources["idle_s"] == 'config.toml [palaces."/srv/palace"]'
    assert found.env == {"PGPASSWORD": "secret"}
    assert settings.broker({}, "/elsewhere").env == {}
    assert settings.broker({"MEMPALACE_BROKER_IDLE_S": "9"}, "/srv/palace").idle_s == 9


def test_a_palace_is_known_by_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    toml = f'[palaces."{tmp_path}/link"]\nidle_s = 3\n'.encode()
    assert PrivateSettings.parse(toml).broker({}, str(tmp_path.resolve())).idle_s == 3


def test_what_the_engine_gets_is_never_shown() -> None:
    settings = PrivateSettings.parse(TOML).broker({}, "/srv/palace")
    assert "secret" not in repr(settings)
    assert "secret" not in repr(settings.as_json())


def test_the_file_lies_in_the_private_folder(tmp_path: Path) -> None:
    env = {VARIABLE: str(tmp_path)}
    assert settings_path(env) == str(tmp_path / "config.toml")
    assert set(PrivateSettings.read(env).broker(env).sources.values()) == {"default"}
    (tmp_path / "config.toml").write_bytes(TOML)
    settings = PrivateSettings.read(env).broker(env)
    assert (settings.idle_s, settings.sources["idle_s"]) == (5, str(tmp_path / "config.toml"))


def test_a_file_that_others_can_write_is_refused_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(TOML)
    path.chmod(0o666)
    with pytest.raises(UsageError, match=f"is not believed: can be written by other users .*chmod go-w {path}"):
        PrivateSettings.read({VARIABLE: str(tmp_path)})


def test_a_folder_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(UsageError, match="not a regular file"):
        PrivateSettings.read({VARIABLE: str(tmp_path)})


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf[broker]\nidle_s = 5", b"[broker]\r\nidle_s = 5\r\n"])
def test_what_windows_editors_write_is_read(content: bytes) -> None:
    assert PrivateSettings.parse(content).broker({}).idle_s == 5


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
        PrivateSettings.parse(toml.encode(), "/r/config.toml").container({})
    assert word in error.value.message
    assert "/r/config.toml" in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("toml", "word"),
    [
        ("[broker]\nidel_s = 1", "idel_s"),
        ("[palaces]\nx = 1", "does not name a folder"),
        ('[palaces]\n"/p" = 1', "must be a table"),
        ('[palaces."/p"]\nidel_s = 1', "idel_s"),
        ('[palaces."/p"]\nenv = "x"', "must be a table"),
        ('[palaces."/p"]\nenv = {"A=B" = "x"}', "not the name of a variable"),
        ('[palaces."/p"]\nenv = {A = 1}', "the value of A is not text"),
    ],
)
def test_so_are_a_brokers_settings(toml: str, word: str) -> None:
    with pytest.raises(UsageError, match=word) as error:
        PrivateSettings.parse(toml.encode(), "/r/config.toml").broker({}, "/p")
    assert "/r/config.toml" in error.value.message


def test_a_password_is_not_quoted() -> None:
    with pytest.raises(UsageError) as error:
        PrivateSettings.parse(b'[broker]\nenv = {A = ["hunter2"]}').broker({})
    assert "hunter2" not in str(error.value)


def test_the_listener_is_set_in_the_file_or_by_variables() -> None:
    settings = PrivateSettings.parse(b'[broker]\ntcp = "docker"\ntcp_port = 7777\n').broker({})
    assert (settings.tcp, settings.tcp_port) == ("docker", 7777)
    assert PrivateSettings().broker({"MEMPALACE_BROKER_TCP": "any"}).tcp == "any"
    with pytest.raises(UsageError, match=r"MEMPALACE_BROKER_TCP: .* would listen"):
        PrivateSettings().broker({"MEMPALACE_BROKER_TCP": "0.0.0.0"})
    with pytest.raises(UsageError, match="above 65535"):
        PrivateSettings.parse(b"[broker]\ntcp_port = 65536\n").broker({})


# --- hostile files: both readers are bounded

BOMBS = {
    "not UTF-8": b"[broker]\nengine = '\xff'",
    "UTF-16": "[broker]\nidle_s = 900\n".encode("utf-16"),
    "too long": b"#" * 1_100_000,
    "deep lists": b"[broker]\nengine = " + b"[" * 3000,
    "deep tables": b"[" + b"a." * 5000 + b"b]",
    "deep key": b"a" + b".a" * 5000 + b" = 1",
    "long number": b"[broker]\nidle_s = " + b"9" * 5000,
    "infinite": b"[broker]\nidle_s = " + b"9" * 400,
    "hexadecimal": b"[broker]\nidle_s = 0x" + b"f" * 10_000,
    "not a number": b"[broker]\nidle_s = nan",
    "escapes": b'[broker]\n"\\u001b]0;x" = 1',
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_a_clear_error(name: str) -> None:
    before = time.monotonic()
    with pytest.raises(UsageError) as error:
        PrivateSettings.parse(BOMBS[name], "/r/config.toml").broker({})
    assert "/r/config.toml" in error.value.message
    assert error.value.message.isprintable()
    assert len(error.value.message) < 400
    shared = SharedSettings.parse(BOMBS[name], "/r/broker.toml")
    assert shared.problem or shared.misplaced
    assert time.monotonic() - before < 5


@given(st.binary(max_size=300) | st.text("[]{}=.\"'a1\\\n", max_size=300).map(str.encode))
def test_whatever_the_files_hold(data: bytes) -> None:
    shared = SharedSettings.parse(data)
    assert set(shared.values) <= {"ssh_host", "direct"}
    assert "".join([shared.problem, *shared.misplaced]).isprintable()
    message = ""
    try:
        settings = PrivateSettings.parse(data)
        settings.broker({}, "/p")
        settings.container({}, shared)
    except UsageError as exc:
        message = str(exc)
    assert message.isprintable()


# --- broker.toml in the state root


def test_only_which_machine_and_the_policy_count_of_the_shared_file() -> None:
    shared = SharedSettings.parse(
        b"""
        engine = "/x"
        [broker]
        engine = "/evil"
        idle_s = 1
        [container]
        ssh_host = "mac"
        direct = "never"
        ssh_config = "/evil"
        ssh_command = "/evil"
        [container.paths]
        "/workspace" = "/Users/me/.ssh"
        [palaces."/p"]
        env = {LD_PRELOAD = "/evil"}
        """,
        "/r/broker.toml",
    )
    assert shared.values == {"ssh_host": "mac", "direct": DirectMode.NEVER}
    assert shared.misplaced == [
        "[engine]",
        "[broker] engine",
        "[broker] idle_s",
        "[container] ssh_config",
        "[container] ssh_command",
        "[container] paths",
        "[palaces] /p",
    ]
    settings = PrivateSettings().container({}, shared)
    assert (settings.ssh_host, settings.sources["ssh_host"]) == ("mac", "/r/broker.toml")
    assert (settings.ssh_config, settings.ssh_command, settings.paths) == ("", "mempalace-broker", {})


def test_the_users_own_file_wins_over_the_shared_one() -> None:
    shared = SharedSettings.parse(b'[container]\nssh_host = "evil"\ndirect = "always"')
    settings = PrivateSettings.parse(TOML).container({}, shared)
    assert (settings.ssh_host, settings.direct) == ("me@mac", DirectMode.NEVER)


def test_a_shared_setting_that_makes_no_sense_is_a_problem_and_the_default_holds() -> None:
    shared = SharedSettings.parse(b'[container]\ndirect = "perhaps"\nssh_host = 1\n', "/r/broker.toml")
    assert "/r/broker.toml" in shared.problem
    assert PrivateSettings().container({}, shared).direct is DirectMode.AUTO


@pytest.mark.parametrize("kind", ["absent", "folder", "fifo", "link"])
def test_the_shared_file_stops_nobody(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "broker.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "other").write_bytes(TOML)
        path.symlink_to(tmp_path / "other")
    shared = SharedSettings.read(str(path))
    assert shared.values == {}
    assert (str(path) in shared.problem) is (kind != "absent")


def test_the_shared_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").write_bytes(b'[container]\nssh_host = "mac"\n')
    assert SharedSettings.read(str(tmp_path / "broker.toml")).values == {"ssh_host": "mac"}
