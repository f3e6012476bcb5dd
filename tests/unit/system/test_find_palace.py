"""Which palace is meant: as mempalace finds it, by the rules of the version that will run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mempalace_broker.errors import PalaceError
from mempalace_broker.system.find_palace import config_dir, resolve_palace
from mempalace_broker.system.paths import StateFiles, state_files


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


def test_a_configuration_that_never_answers_is_none(home: Path) -> None:
    """Whoever has the folder mounted can put a FIFO there."""
    folder = home / ".mempalace"
    configured(folder, "{}")
    (folder / "people_map.json").touch()
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert found(home) == (f"{folder}/palace", "default")


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
        assert {**one.as_json(), "name": f"{home}/link"} == two.as_json()
        assert one.name == f"{home}/real"

    def test_a_name_whose_dots_mean_something_else_as_text_is_not_kept(self, home: Path) -> None:
        (home / "far" / "deep").mkdir(parents=True)
        (home / "link").symlink_to("far/deep")
        configured(home / ".mempalace", {"palace_path": f"{home}/link/../p"})
        assert resolve_palace(None, {}, str(home)).name == f"{home}/far/p"
        configured(home / ".mempalace", {"palace_path": f"{home}/link/./p"})
        assert resolve_palace(None, {}, str(home)).name == f"{home}/link/p"

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

    def test_a_backend_passes_through(self, home: Path) -> None:
        assert resolve_palace("/p", {}, str(home), " Chroma ").backend == "chroma"
        assert resolve_palace("/p", {}, str(home), "").backend is None


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


class TestWhichVersion:
    """Where versions differ; tests/data/palace-choices.json has what each of them does."""

    def meant(self, home: Path, *versions: tuple[int, ...], **env: str) -> tuple[str, list[str]]:
        """The palace; and those for which a version was asked, each answer in turn."""
        asked: list[str] = []

        def version(palace: str) -> tuple[int, ...]:
            asked.append(palace.removeprefix(f"{home}/"))
            return versions[min(len(asked), len(versions)) - 1]

        identity = resolve_palace(None, env, str(home), version=version)
        return identity.path.removeprefix(f"{home}/"), asked

    def test_on_a_new_machine_it_is_asked(self, home: Path) -> None:
        assert self.meant(home, (3, 4, 0)) == (".mempalace/palace", [".config/mempalace/palace", ".mempalace/palace"])
        assert self.meant(home, (3, 9, 9))[0] == ".mempalace/palace"
        assert self.meant(home, (3, 10))[0] == ".config/mempalace/palace"
        assert self.meant(home, (4, 0))[0] == ".config/mempalace/palace"

    def test_where_none_is_known_the_newest_rules_count(self, home: Path) -> None:
        assert self.meant(home, ())[0] == ".config/mempalace/palace"
        assert self.meant(home, (), MEMPALACE_PALACE="~/e")[0] == "e"

    def test_the_interpreter_is_not_asked_where_all_agree(self, home: Path) -> None:
        for name in (".mempalace/config.json", ".mempalace/palace/chroma.sqlite3"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).touch()
            assert self.meant(home, (3, 4)) == (".mempalace/palace", [])
        assert self.meant(home, (3, 4), MEMPALACE_PALACE_PATH="~/e") == ("e", [])

    @pytest.mark.parametrize("store", ["chroma.sqlite3", "sqlite_exact.sqlite3", "qdrant_backend.json"])
    @pytest.mark.parametrize("made", [".mempalace/palace", ".config/mempalace/palace"])
    def test_the_palace_of_another_version_stays_found(self, home: Path, made: str, store: str) -> None:
        (home / made).mkdir(parents=True)
        (home / made / store).touch()
        assert self.meant(home, (3, 4)) == (made, [])
        assert self.meant(home, (3, 11)) == (made, [])

    def test_each_version_keeps_its_own_where_both_have_one(self, home: Path) -> None:
        """Other backends than chroma do not make ~/.mempalace an installation, in any version."""
        for folder in (".mempalace/palace", ".config/mempalace/palace"):
            (home / folder).mkdir(parents=True)
            (home / folder / "sqlite_exact.sqlite3").touch()
        assert self.meant(home, (3, 4))[0] == ".mempalace/palace"
        assert self.meant(home, (3, 11))[0] == ".config/mempalace/palace"

    def test_a_palace_that_the_user_named_is_that_one_before_it_is_there(self, home: Path) -> None:
        (home / ".mempalace" / "palace").mkdir(parents=True)
        (home / ".mempalace" / "palace" / "chroma.sqlite3").touch()
        for env in ({"MEMPALACE_PALACE": "~/e"}, {"MEMPALACE_CONFIG_DIR": "~/e"}):
            assert self.meant(home, (3, 11), **env)[0] in ("e", "e/palace")
            assert self.meant(home, (3, 4), **env)[0] == ".mempalace/palace"
        (home / "e" / "palace").mkdir(parents=True)
        (home / "e" / "palace" / "chroma.sqlite3").touch()
        (home / ".mempalace" / "palace" / "chroma.sqlite3").unlink()
        assert self.meant(home, (3, 4), MEMPALACE_CONFIG_DIR="~/e")[0] == "e/palace", "the only one that there is"

    def test_a_palace_whose_settings_name_another_engine(self, home: Path) -> None:
        """The settings of the first guess say 3.4, and those of the palace to which that leads say 3.4, too."""
        assert self.meant(home, (3, 11), (3, 4))[0] == ".mempalace/palace"
        assert self.meant(home, (3, 4), (3, 11))[0] == ".config/mempalace/palace"


class TestLinkedPalace:
    @pytest.mark.parametrize("target", ["empty", "chroma.sqlite3", "tunnels.json", ".stfolder"])
    def test_the_users_own_link_is_followed(self, home: Path, target: str) -> None:
        real = home / "data"
        real.mkdir()
        if target != "empty":
            (real / target).touch()
        (home / "palace").symlink_to(real)
        assert resolve_palace(f"{home}/palace", {}, str(home)).path == str(real)

    def test_a_link_that_leads_nowhere_is_refused(self, home: Path) -> None:
        """As by mempalace: a disk that is not mounted must not get a second, empty palace in its place."""
        (home / "palace").symlink_to(home / "disk" / "palace")
        with pytest.raises(PalaceError, match=r"is a link to .*/disk/palace, which is not there") as refused:
            resolve_palace(f"{home}/palace", {}, str(home))
        assert "mount the disk" in refused.value.hint
        (home / "loop").symlink_to("loop")
        assert resolve_palace(f"{home}/loop", {}, str(home)).path == f"{home}/loop", "opening it reports the error"

    def test_a_link_to_other_files_is_refused(self, home: Path) -> None:
        (home / "documents").mkdir()
        (home / "documents" / "letter.txt").touch()
        (home / "palace").symlink_to("documents")
        with pytest.raises(PalaceError, match=r"is a link to .*/documents, which holds other files") as refused:
            resolve_palace(f"{home}/palace", {}, str(home))
        assert f"name {home}/documents itself" in refused.value.hint
        assert resolve_palace(f"{home}/documents", {}, str(home)).path == f"{home}/documents"


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
