"""Which palace and which files: by name only, the same for every client."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.errors import PalaceError, StateRootError
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.system import paths
from mempalace_broker.system.paths import (
    StateFiles,
    config_dir,
    expand,
    home_of,
    resolve_palace,
    state_files,
    state_root,
)
from mempalace_broker.system.private import palace_key
from mempalace_broker.system.unix_socket import MAX_PATH


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory without symlinks in its own path."""
    path = Path(os.path.realpath(tmp_path)) / "home"
    path.mkdir()
    return path


def configured(folder: Path, content: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "config.json").write_text(text, encoding="utf-8")


def found(home: Path, flag: str | None = None, **env: str) -> tuple[str, str]:
    identity = resolve_palace(flag, env, str(home))
    return identity.path, identity.by


class TestPalace:
    def test_flag_beats_variables_beat_config_beats_default(self, home: Path) -> None:
        configured(home / ".mempalace", {"palace_path": "/c"})
        env = {"MEMPALACE_PALACE_PATH": "/e1", "MEMPALACE_PALACE": "/e2", "MEMPAL_PALACE_PATH": "/e3"}
        assert found(home, "/f", **env) == ("/f", "flag")
        for name, value in env.copy().items():
            assert found(home, None, **env) == (value, "env")
            env[name] = ""  # set but empty counts as not set
        assert found(home, "", **env) == ("/c", "config")
        configured(home / ".mempalace", {})
        assert found(home) == (f"{home}/.mempalace/palace", "default")

    def test_the_graph_lies_in_the_palace_only_by_flag(self, home: Path) -> None:
        by_flag = resolve_palace("/p", {}, str(home))
        by_env = resolve_palace(None, {"MEMPALACE_PALACE_PATH": "/p"}, str(home))
        assert by_flag.path == by_env.path == "/p"
        assert by_flag.graph == "/p/knowledge_graph.sqlite3"
        assert by_env.graph == f"{home}/.mempalace/knowledge_graph.sqlite3"

    def test_symlinks_lead_to_one_identity(self, home: Path) -> None:
        (home / "real").mkdir()
        (home / "link").symlink_to("real")
        one = resolve_palace(f"{home}/real", {}, str(home))
        two = resolve_palace(f"{home}/link/", {}, str(home))
        assert one.as_json() == two.as_json()

    def test_dots_before_symlinks_as_mempalace_does(self, home: Path) -> None:
        """Flag and variables are normalised as text before anything is followed, config.json is not."""
        (home / "far" / "deep").mkdir(parents=True)
        (home / "link").symlink_to("far/deep")
        assert found(home, f"{home}/link/../p") == (f"{home}/p", "flag")
        assert found(home, MEMPALACE_PALACE_PATH=f"{home}/link/../p") == (f"{home}/p", "env")
        configured(home / ".mempalace", {"palace_path": f"{home}/link/../p"})
        assert found(home) == (f"{home}/far/p", "config")

    def test_tilde(self, home: Path) -> None:
        assert found(home, "~/p") == (f"{home}/p", "flag")
        assert found(home, MEMPALACE_PALACE="~/p") == (f"{home}/p", "env")
        configured(home / ".mempalace", {"palace_path": "~/p"})
        assert found(home) == (f"{home}/p", "config")

    def test_relative_ones_count_from_the_working_directory(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(home)
        assert found(home, "p") == (f"{home}/p", "flag")
        configured(home / ".mempalace", {"palace_path": "q"})
        assert found(home) == (f"{home}/q", "config")

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\xff", "[" * 50_000])
    def test_an_unreadable_config_is_as_none(self, home: Path, text: str) -> None:
        (home / ".mempalace").mkdir()
        (home / ".mempalace" / "config.json").write_bytes(text.encode("latin-1"))
        assert found(home) == (f"{home}/.mempalace/palace", "default")

    def test_a_byte_order_mark_is_passed_over(self, home: Path) -> None:
        configured(home / ".mempalace", "\ufeff" + json.dumps({"palace_path": "/c"}))
        assert found(home) == ("/c", "config")

    @pytest.mark.parametrize("value", [None, "", 7, ["/p"], "a\0b", "\ud800"])
    def test_a_config_that_names_no_directory_is_said(self, home: Path, value: object) -> None:
        configured(home / ".mempalace", {"palace_path": value})
        with pytest.raises(PalaceError, match="Hint: correct"):
            found(home)

    def test_backend_and_collection_pass_through(self, home: Path) -> None:
        identity = resolve_palace("/p", {}, str(home), " Chroma ", "mine")
        assert (identity.backend, identity.collection) == ("chroma", "mine")
        identity = resolve_palace("/p", {}, str(home), "", "")
        assert (identity.backend, identity.collection) == (None, None)


class TestConfigDir:
    def test_order(self, home: Path) -> None:
        xdg = f"{home}/xdg"
        assert config_dir({}, str(home)) == f"{home}/.config/mempalace"
        assert config_dir({"XDG_CONFIG_HOME": xdg}, str(home)) == f"{xdg}/mempalace"
        assert config_dir({"XDG_CONFIG_HOME": "relative"}, str(home)) == f"{home}/.config/mempalace"
        assert config_dir({"XDG_CONFIG_HOME": "  "}, str(home)) == f"{home}/.config/mempalace"
        configured(home / ".mempalace", {})
        assert config_dir({"XDG_CONFIG_HOME": xdg}, str(home)) == f"{home}/.mempalace"
        assert config_dir({"MEMPALACE_CONFIG_DIR": "~/c"}, str(home)) == f"{home}/c"
        assert config_dir({"MEMPALACE_CONFIG_DIR": " "}, str(home)) == f"{home}/.mempalace"

    @pytest.mark.parametrize("mark", ["config.json", "people_map.json", "palace/chroma.sqlite3"])
    def test_what_makes_an_installation(self, home: Path, mark: str) -> None:
        path = home / ".mempalace" / mark
        path.parent.mkdir(parents=True)
        assert config_dir({}, str(home)) == f"{home}/.config/mempalace", "an empty folder is none"
        path.touch()
        assert config_dir({}, str(home)) == f"{home}/.mempalace"

    def test_our_own_files_make_none(self, home: Path) -> None:
        """Else the first start would move the default palace away from under its clients."""
        before = resolve_palace(None, {}, str(home))
        StateFiles(f"{home}/.mempalace", f"{home}/.mempalace/palace").prepare()
        files = state_files(before, {})
        files.prepare()
        for path in (files.record, files.owner_lock, files.start_lock):
            Path(path).touch()
        assert resolve_palace(None, {}, str(home)).as_json() == before.as_json()


class TestStateRoot:
    @pytest.mark.parametrize(
        ("palace", "root"),
        [
            ("/home/me/.mempalace/palace", "/home/me/.mempalace"),
            ("/srv/team", "/srv/team"),
            ("/palace", "/palace"),
            ("/palace/palace", "/palace"),
            ("/srv/palaces", "/srv/palaces"),
        ],
    )
    def test_by_name_only(self, palace: str, root: str) -> None:
        assert state_root(palace, {}) == root
        assert state_root(palace, {"MEMPALACE_PATH": " "}) == root

    def test_named_explicitly(self, home: Path) -> None:
        (home / "link").symlink_to(".")
        env = {"MEMPALACE_PATH": "~/link/r", "HOME": str(home)}
        assert state_root("/srv/team", env) == f"{home}/r"

    def test_all_files(self) -> None:
        files = state_files(PalaceIdentity("/r/palace", "/g", "flag"), {})
        assert {files.record, files.start_lock, files.toml, files.journal} == {
            "/r/broker.json",
            "/r/broker.start.lock",
            "/r/broker.toml",
            "/r/broker.journal",
        }
        assert (files.owner_lock, files.engine_lock) == ("/r/palace/broker.lock", "/r/palace/engine.lock")
        assert files.socket == "/r/broker.sock"

    def test_what_others_must_not_write_lies_in_a_private_folder(self) -> None:
        env = {"MEMPALACE_BROKER_PRIVATE": "/mine"}
        files = state_files(PalaceIdentity("/r/palace", "/g", "flag"), env)
        folder = f"/mine/state/{palace_key('/r/palace')}"
        assert files.log == f"{folder}/broker.log"
        assert [file.path for file in (files.exit, files.answers, files.start_failure)] == [
            f"{folder}/broker-exit.json",
            f"{folder}/broker-answers.json",
            f"{folder}/broker-start-failure.json",
        ]
        assert files.direct().log.startswith(f"{folder}/broker-direct-")

    def test_the_locks_stay_with_the_palace_wherever_the_root_is(self) -> None:
        files = state_files(PalaceIdentity("/p", "/g", "flag"), {"MEMPALACE_PATH": "/elsewhere"})
        assert files.record == "/elsewhere/broker.json"
        assert files.owner_lock == "/p/broker.lock"

    def test_on_linux_the_socket_is_in_the_root_however_long_its_path_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(paths, "LINUX", True)
        root = "/" + "a" * 300
        assert StateFiles(root, f"{root}/palace").socket == f"{root}/broker.sock"

    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=300))
    def test_elsewhere_it_is_in_a_private_folder_where_its_path_is_too_long(self, name: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paths, "LINUX", False)
            files = StateFiles(f"/r/{name}", "/p", env={"MEMPALACE_BROKER_PRIVATE": "/mine"})
        assert len(os.fsencode(files.socket)) <= MAX_PATH
        assert files.socket in (f"/r/{name}/broker.sock", f"/mine/state/{palace_key('/p')}/broker.sock")


class TestLinkedPalace:
    @pytest.mark.parametrize("target", ["missing", "empty", "chroma.sqlite3", "tunnels.json", ".stfolder"])
    def test_the_users_own_link_is_followed(self, home: Path, target: str) -> None:
        real = home / "data"
        if target != "missing":
            real.mkdir()
        if target not in ("missing", "empty"):
            (real / target).touch()
        (home / "palace").symlink_to(real)
        assert resolve_palace(f"{home}/palace", {}, str(home)).path == str(real)

    def test_a_link_to_other_files_is_refused(self, home: Path) -> None:
        (home / "documents").mkdir()
        (home / "documents" / "letter.txt").touch()
        (home / "palace").symlink_to("documents")
        with pytest.raises(PalaceError, match=r"is a link to .*/documents, which holds other files") as refused:
            resolve_palace(f"{home}/palace", {}, str(home))
        assert f"name {home}/documents itself" in refused.value.hint
        assert resolve_palace(f"{home}/documents", {}, str(home)).path == f"{home}/documents"


class TestPrepare:
    def test_makes_private_folders(self, home: Path) -> None:
        files = StateFiles(f"{home}/a/root", f"{home}/a/root/palace")
        files.prepare()
        files.prepare()
        assert os.stat(files.root).st_mode & 0o777 == 0o700
        assert os.stat(files.palace).st_mode & 0o777 == 0o700

    def test_leaves_existing_ones_as_they_are(self, home: Path) -> None:
        (home / "p").mkdir(mode=0o755)
        StateFiles(f"{home}/p", f"{home}/p").prepare()
        assert os.stat(home / "p").st_mode & 0o777 == 0o755

    def test_a_file_in_the_way_is_said(self, home: Path) -> None:
        (home / "file").touch()
        with pytest.raises(StateRootError, match=r"cannot create .*/file"):
            StateFiles(f"{home}/file", f"{home}/file/palace").prepare()

    def test_the_sockets_own_folder_must_be_ours_alone(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> None:
        monkeypatch.setattr(paths, "LINUX", False)
        mine = Path(tempfile.mkdtemp())  # tmp_path is too long here
        request.addfinalizer(lambda: shutil.rmtree(mine))
        root = home / ("r" * 120)
        files = StateFiles(str(root), str(root), env={"MEMPALACE_BROKER_PRIVATE": str(mine)})
        folder = Path(files.socket).parent
        assert folder.is_relative_to(mine)
        files.check_socket_folder()  # nothing there, nobody to fear
        files.prepare()
        assert os.stat(folder).st_mode & 0o777 == 0o700
        folder.chmod(0o777)
        with pytest.raises(StateRootError, match="can be written by other users"):
            files.check_socket_folder()
        with pytest.raises(StateRootError, match="can be written by other users"):
            files.prepare()


def test_expand_goes_by_the_home_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/wrong")
    assert expand("~", "/h") == "/h"
    assert expand("~/x", "/h/") == "/h/x"
    assert expand("~/x", "/") == "/x"
    assert expand("~", "/") == "/"
    assert expand("~root", "/h") == os.path.expanduser("~root")
    assert expand("/~/x", "/h") == "/~/x"


def test_home_without_a_variable() -> None:
    assert home_of({"HOME": "/h"}) == "/h"
    assert os.path.isabs(home_of({}))


def test_a_broker_from_beyond_shares_the_locks_and_the_settings_and_no_file_that_it_writes(tmp_path: Path) -> None:
    own = StateFiles(str(tmp_path), str(tmp_path / "palace"))
    direct = own.direct()
    names = {name for name in StateFiles.__slots__ if not name.startswith("_")}
    same = {name for name in names if getattr(own, name) == getattr(direct, name)}
    assert same == {"root", "palace", "owner_lock", "engine_lock", "leases", "toml"}
    for name in ("exit", "answers", "start_failure"):
        assert getattr(own, name).path != getattr(direct, name).path
    assert own.log != direct.log


@pytest.mark.parametrize(
    ("named", "taken"),
    [
        ("/Users/me/.mempalace/palace", True),
        ("/Users/me/.mempalace/other", False),
        ("/Users/me/elsewhere/palace", False),
    ],
)
def test_a_config_from_the_other_side_of_a_mount_means_the_palace_beside_it(
    tmp_path: Path, named: str, taken: bool
) -> None:
    root = tmp_path.resolve() / ".mempalace"
    (root / "palace").mkdir(parents=True)
    (root / "config.json").write_text(json.dumps({"palace_path": named}), encoding="utf-8")
    found = resolve_palace(None, {}, str(tmp_path.resolve()))
    assert found.path == (str(root / "palace") if taken else named)
    assert found.by == "config"


def test_a_named_palace_whose_root_is_there_is_that_palace(tmp_path: Path) -> None:
    root, other = tmp_path.resolve() / "a" / ".mempalace", tmp_path.resolve() / "b" / ".mempalace"
    (root / "palace").mkdir(parents=True)
    other.mkdir(parents=True)
    (root / "config.json").write_text(json.dumps({"palace_path": f"{other}/palace"}), encoding="utf-8")
    assert resolve_palace(None, {}, str(root.parent)).path == f"{other}/palace"
