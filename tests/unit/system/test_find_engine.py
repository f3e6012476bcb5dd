"""Finding the engine's interpreter: every kind of installation that users have, as a tree of files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mempalace_broker.errors import EXIT_NO_ENGINE, EngineNotFound
from mempalace_broker.system import program_folders
from mempalace_broker.system.find_engine import SETTING, EngineCommand, find_engine, installed_version

NOWHERE = "/nonexistent/bin"


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_folders, "private_home", lambda: "")
    monkeypatch.setattr(program_folders, "_FOR_ALL", ())


def executable(path: Path, text: str = "\x7fELF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def metadata(site: Path, version: str, name: str = "mempalace") -> None:
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nSummary: x\n"
    (info / "METADATA").write_text(text, encoding="utf-8")


def venv(root: Path, version: str | None = "3.11.0", python: str = "3.11", extra: str = "") -> Path:
    """A virtual environment as venv makes it; returns its interpreter."""
    base = executable(root.parent / f"base-{root.name}" / "bin" / f"python{python}")
    (root / "bin").mkdir(parents=True)
    (root / "pyvenv.cfg").write_text(f"home = {base.parent}\nversion = {python}.4\n{extra}", encoding="utf-8")
    interpreter = root / "bin" / "python"
    interpreter.symlink_to(base)
    (root / "bin" / "python3").symlink_to("python")
    site = root / "lib" / f"python{python}" / "site-packages"
    site.mkdir(parents=True)
    if version:
        metadata(site, version)
    return interpreter


def script(folder: Path, head: str, name: str = "mempalace-mcp") -> Path:
    return executable(folder / name, head + "\nimport sys\nfrom mempalace.mcp_server import main\n")


def refusal(env: dict[str, str], own: str, path: str) -> EngineNotFound:
    with pytest.raises(EngineNotFound) as error:
        find_engine(env, own, path)
    assert error.value.exit_code == EXIT_NO_ENGINE
    assert SETTING in error.value.hint
    return error.value


# --- where it is found


def test_the_setting_names_an_interpreter(tmp_path: Path) -> None:
    python = venv(tmp_path / "v")
    found = find_engine({SETTING: str(python)}, "", NOWHERE)
    assert found == EngineCommand(str(python), f"{SETTING}={python}", "3.11.0")


def test_the_setting_may_name_a_script_an_environment_or_start_at_home(tmp_path: Path) -> None:
    python = venv(tmp_path / "v")
    mcp = script(python.parent, f"#!{python}")
    assert find_engine({SETTING: str(mcp)}, "", NOWHERE).interpreter == str(python)
    assert find_engine({SETTING: str(tmp_path / "v")}, "", NOWHERE).interpreter == str(python)
    env = {SETTING: "~/v/bin/python", "HOME": str(tmp_path)}
    assert find_engine(env, "", NOWHERE).interpreter == str(python)
    assert find_engine({SETTING: "mempalace-mcp"}, "", str(python.parent)).interpreter == str(python)


def test_the_setting_is_binding(tmp_path: Path) -> None:
    good = venv(tmp_path / "good")
    env = {SETTING: str(venv(tmp_path / "old", version="3.3.9"))}
    assert "mempalace 3.3.9 is older than 3.4.0" in str(refusal(env, str(good), str(good.parent)))


def test_the_own_environment_comes_before_path(tmp_path: Path) -> None:
    own, other = venv(tmp_path / "own", "3.4.0"), venv(tmp_path / "other")
    script(other.parent, f"#!{other}")
    found = find_engine({}, str(own), str(other.parent))
    assert found == EngineCommand(str(own), "the broker's own environment", "3.4.0")


def test_an_empty_setting_is_none(tmp_path: Path) -> None:
    assert find_engine({SETTING: " "}, str(venv(tmp_path / "own")), NOWHERE).version == "3.11.0"


def uv_tool(base: Path) -> tuple[Path, str]:
    """uv tool install: a link on PATH to a script with a plain first line; no python beside the link."""
    python = venv(base / "share/uv/tools/mempalace", python="3.13")
    (base / "bin").mkdir()
    (base / "bin/mempalace-mcp").symlink_to(script(python.parent, f"#!{python}"))
    return python, str(base / "bin")


def pipx(base: Path) -> tuple[Path, str]:
    """pipx, as uv tool but the script itself starts with a versioned interpreter and an option."""
    python = venv(base / "pipx/venvs/mempalace", python="3.12")
    (base / "bin").mkdir()
    (base / "bin/mempalace-mcp").symlink_to(script(python.parent, f"#!{python} -E"))
    return python, str(base / "bin")


def long_path(base: Path) -> tuple[Path, str]:
    """pip, where the path is too long or has a blank: sh finds the interpreter in the second line."""
    python = venv(base / "with a blank")
    head = f"""#!/bin/sh\n'''exec' "{python}" "$0" "$@"\n' '''"""
    return python, str(script(python.parent, head).parent)


def uv_quoted(base: Path) -> tuple[Path, str]:
    python = venv(base / "it is uv")
    return python, str(script(python.parent, f"#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''").parent)


def relocatable(base: Path) -> tuple[Path, str]:
    """uv venv --relocatable: the interpreter is found beside the script."""
    python = venv(base / "v")
    head = """#!/bin/sh\n'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python' "$0" "$@"\n' '''"""
    return python, str(script(python.parent, head).parent)


def env_python(base: Path) -> tuple[Path, str]:
    """#!/usr/bin/env -S python3 -I, with the environment activated."""
    python = venv(base / "v")
    (base / "bin").mkdir()
    script(base / "bin", "#!/usr/bin/env -S python3 -I")
    return python.parent / "python3", f"{base / 'bin'}:{python.parent}"


def wrapper(base: Path) -> tuple[Path, str]:
    """Homebrew: a shell script that sets something and hands over to the real script."""
    python = venv(base / "Cellar/mempalace/3.11.0/libexec")
    real = script(python.parent, f"#!{python}")
    executable(base / "bin/mempalace-mcp", f'#!/bin/bash\nexport X=1\nX="y" exec "{real}" "$@"\n')
    executable(base / "bin/mempalace", f'#!/bin/bash\nexec "{real}" "$@"\n')
    return python, str(base / "bin")


def launcher(base: Path) -> tuple[Path, str]:
    """A binary launcher in a virtual environment."""
    python = venv(base / "v")
    executable(python.parent / "mempalace-mcp")
    return python.parent / "python3", str(python.parent)


def pyenv(base: Path) -> tuple[Path, str]:
    """pyenv: shims that all look alike, the newest version that has the script."""
    for number in ("3.9.18", "3.10.2", "3.12.1"):
        folder = base / "versions" / number
        minor = number.rpartition(".")[0]
        interpreter = executable(folder / "bin" / f"python{minor}")
        if number != "3.12.1":
            metadata(folder / f"lib/python{minor}/site-packages", "3.11.0")
            script(folder / "bin", f"#!{interpreter}")
    executable(base / "shims/mempalace-mcp", '#!/usr/bin/env bash\nexec "/nowhere/libexec/pyenv" exec "$program"\n')
    return base / "versions/3.10.2/bin/python3.10", str(base / "shims")


@pytest.mark.parametrize(
    "install",
    [uv_tool, pipx, long_path, uv_quoted, relocatable, env_python, wrapper, launcher, pyenv],
    ids=lambda install: install.__name__,
)
def test_it_is_found_behind_a_script_on_path(tmp_path: Path, install: object) -> None:
    assert callable(install)
    python, path = install(tmp_path)
    empty = venv(tmp_path / "own", version=None)
    found = find_engine({}, str(empty), f"{NOWHERE}:{path}")
    assert found.interpreter == str(python)
    assert found.version == "3.11.0"
    assert found.source.startswith(("mempalace-mcp on PATH", "mempalace on PATH"))


def test_a_script_that_is_our_own_shim_is_passed_over(tmp_path: Path) -> None:
    broker = venv(tmp_path / "broker", version=None)
    (tmp_path / "first").mkdir()
    (tmp_path / "first/mempalace-mcp").symlink_to(script(broker.parent, f"#!{broker}", "mp-shim"))
    engine = venv(tmp_path / "engine")
    script(engine.parent, f"#!{engine}")
    found = find_engine({}, str(broker), f"{tmp_path / 'first'}:{engine.parent}")
    assert found.interpreter == str(engine)


def test_too_old_on_path_does_not_hide_a_good_one(tmp_path: Path) -> None:
    old, good = venv(tmp_path / "old", "3.3.0"), venv(tmp_path / "good", "4.0.0")
    for python in (old, good):
        script(python.parent, f"#!{python}")
    assert find_engine({}, "", f"{old.parent}:{good.parent}").interpreter == str(good)


def test_python_3_9_is_fine(tmp_path: Path) -> None:
    assert find_engine({}, str(venv(tmp_path / "v", python="3.9")), NOWHERE).version == "3.11.0"


# --- why not


def test_nothing_anywhere(tmp_path: Path) -> None:
    text = str(refusal({}, str(venv(tmp_path / "own", version=None)), NOWHERE))
    assert f"{tmp_path / 'own/bin/python'}: has no mempalace" in text
    assert "uv tool install mempalace" in text


def test_all_that_was_looked_at_is_named(tmp_path: Path) -> None:
    old, ancient = venv(tmp_path / "old", "3.3.0"), venv(tmp_path / "ancient", python="3.8")
    script(old.parent, f"#!{old}")
    script(ancient.parent, f"#!{ancient}", "mempalace")
    text = str(refusal({}, "", f"{old.parent}:{ancient.parent}"))
    assert f"{old}: mempalace 3.3.0 is older than 3.4.0" in text
    assert f"{ancient}: Python 3.8 is older than 3.9" in text


@pytest.mark.parametrize("value", ["/nonexistent/python", "no-such-command", "."])
def test_a_setting_that_names_nothing(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = refusal({SETTING: value}, "", NOWHERE)
    assert f"{SETTING}={value} names no file that can be executed" in str(refused)
    assert "setup --engine" not in refused.hint, "it installs nothing where a setting names an engine"


def test_a_setting_that_does_not_name_a_python(tmp_path: Path) -> None:
    text = str(refusal({SETTING: str(executable(tmp_path / "tool"))}, "", NOWHERE))
    assert "neither a Python interpreter nor a script of one" in text


def test_wrappers_that_go_round_in_circles(tmp_path: Path) -> None:
    one, two = tmp_path / "mempalace-mcp", tmp_path / "mempalace"
    executable(one, f"#!/bin/sh\nexec {two}\n")
    executable(two, f"#!/bin/sh\nexec {one}\n")
    assert "No mempalace found" in str(refusal({}, "", str(tmp_path)))


@pytest.mark.parametrize(
    "head", [b"", b"#!", b"#!\n", b"#! /usr/bin/env\n", b"#!/bin/sh\n'''exec' 'unbalanced\n", b"\xff\xfe"]
)
def test_scripts_without_sense(tmp_path: Path, head: bytes) -> None:
    path = executable(tmp_path / "mempalace-mcp")
    path.write_bytes(head)
    refusal({}, "", str(tmp_path))


# --- asked instead of read


def test_an_interpreter_whose_disk_says_nothing_is_asked(tmp_path: Path) -> None:
    # a wrapper named python, as conda and Nix make them: no environment around it
    wrapped = executable(
        tmp_path / "odd/python3",
        f'#!/bin/sh\n[ "$1" = -I ] && shift\nPYTHONPATH={tmp_path}/lib exec {sys.executable} "$@"\n',
    )
    metadata(tmp_path / "lib", "3.7.0")
    found = find_engine({SETTING: str(wrapped)}, "", NOWHERE)
    assert (found.interpreter, found.version) == (sys.executable, "3.7.0")


@pytest.mark.parametrize("body", ["exit 3", "echo nonsense", "echo '[1, null'"])
def test_one_that_does_not_answer(tmp_path: Path, body: str) -> None:
    fake = executable(tmp_path / "python3", f"#!/bin/sh\n{body}\n")
    assert "does not run as a Python interpreter" in str(refusal({SETTING: str(fake)}, "", NOWHERE))


# --- versions on disk


def test_another_distribution_is_not_taken_for_it(tmp_path: Path) -> None:
    python = venv(tmp_path / "v", version=None)
    metadata(tmp_path / "v/lib/python3.11/site-packages", "9.9", name="mempalace-broker")
    metadata(tmp_path / "v/lib/python3.11/site-packages", "8.8", name="mempalace_x")
    assert installed_version(str(python)) is None


def test_system_packages_count_where_the_environment_shares_them(tmp_path: Path) -> None:
    shared = "include-system-site-packages = true\n"
    for name, extra, expected in (("with", shared, "3.5.0"), ("without", "", None)):
        python = venv(tmp_path / name, version=None, extra=extra)
        metadata(tmp_path / f"base-{name}/lib/python3.11/site-packages", "3.5.0")
        assert installed_version(str(python)) == expected


def test_only_the_packages_of_that_python_count(tmp_path: Path) -> None:
    interpreter = executable(tmp_path / "bin/python3.11")
    metadata(tmp_path / "lib/python3.12/site-packages", "3.5.0")
    assert installed_version(str(interpreter)) is None
    metadata(tmp_path / "lib/python3.11/dist-packages", "3.6.0")
    assert installed_version(str(interpreter)) == "3.6.0"


def test_a_real_virtual_environment(tmp_path: Path) -> None:
    root = tmp_path / "real"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root)], check=True, timeout=60)
    python = root / "bin/python"
    assert installed_version(str(python)) is None
    [site] = root.glob("lib/python3*/site-packages")
    metadata(site, "3.4.0")
    found = find_engine({}, str(python), os.environ["PATH"])
    assert found == EngineCommand(str(python), "the broker's own environment", "3.4.0")


# --- off PATH


@pytest.mark.parametrize(
    "folder",
    [
        ".local/bin",
        ".local/share/uv/tools/mempalace/bin",
        ".local/pipx/venvs/mempalace/bin",
        "Library/Application Support/pipx/venvs/mempalace/bin",
        "Library/Python/3.12/bin",
    ],
)
def test_a_minimal_path_finds_what_the_user_installed(tmp_path: Path, folder: str) -> None:
    """What a login shell adds to PATH is missing for an app started from the Dock and for a command over ssh."""
    python = venv(tmp_path / "tool")
    mcp = script(tmp_path / "home" / folder, f"#!{python}")
    found = find_engine({"HOME": str(tmp_path / "home")}, "", NOWHERE)
    assert (found.interpreter, found.source) == (str(python), f"mempalace-mcp installed ({mcp})")


def test_whose_path_comes_first_does_not_matter(tmp_path: Path) -> None:
    """One broker serves all: a terminal's PATH and the short one of an app must lead to one engine."""
    usual, other = venv(tmp_path / "usual", "3.10.0"), venv(tmp_path / "other")
    script(tmp_path / "home" / ".local" / "bin", f"#!{usual}", "mempalace")
    script(tmp_path / "bin", f"#!{other}")
    for path in (NOWHERE, str(tmp_path / "bin"), f"{tmp_path / 'home/.local/bin'}:{tmp_path / 'bin'}"):
        assert find_engine({"HOME": str(tmp_path / "home")}, "", path).interpreter == str(usual)


@pytest.mark.parametrize("tools", ["share/uv/tools", "pipx/venvs"])
def test_the_tool_beside_ours_wherever_tools_are(tmp_path: Path, tools: str) -> None:
    """UV_TOOL_DIR and PIPX_HOME move them, and a starter may not have those variables."""
    own, python = venv(tmp_path / tools / "mempalace-broker", version=None), venv(tmp_path / tools / "mempalace")
    script(python.parent, f"#!{python}")
    assert find_engine({}, str(own), NOWHERE).interpreter == str(python)


def test_nothing_beside_ours_where_others_can_put_it(tmp_path: Path) -> None:
    """An environment in /tmp: any user can make /tmp/mempalace."""
    own, python = venv(tmp_path / "tmp" / "own", version=None), venv(tmp_path / "tmp" / "mempalace")
    script(python.parent, f"#!{python}")
    (tmp_path / "tmp").chmod(0o1777)
    with pytest.raises(EngineNotFound):
        find_engine({}, str(own), NOWHERE)


@pytest.mark.parametrize("site", [".local/lib/python3.11", "Library/Python/3.11/lib/python"])
@pytest.mark.parametrize("where", ["its script", "our own interpreter"])
def test_what_pip_installed_for_the_user(tmp_path: Path, site: str, where: str) -> None:
    home, python = tmp_path / "home", executable(tmp_path / "usr/bin/python3.11")
    metadata(home / site / "site-packages", "3.11.0")
    script(home / ".local/bin", f"#!{python}")
    found = find_engine({"HOME": str(home)}, str(python) if where != "its script" else "", NOWHERE)
    assert (found.interpreter, found.version) == (str(python), "3.11.0")
    other = executable(tmp_path / "usr/bin/python3.12")
    assert installed_version(str(other), str(home)) is None, "another Python does not import it"


def test_the_newest_python_of_macos_first(tmp_path: Path) -> None:
    for minor in (9, 13, 12):
        script(tmp_path / f"Library/Python/3.{minor}/bin", f"#!{venv(tmp_path / f'v{minor}')}")
    assert find_engine({"HOME": str(tmp_path)}, "", NOWHERE).interpreter == str(tmp_path / "v13" / "bin" / "python")
