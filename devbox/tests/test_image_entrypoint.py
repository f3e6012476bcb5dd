"""The entry points of the devbox, run in a namespace: the user of the command, its home, and the files left alone."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess

import pytest

from devbox.tests.imagebox import BRIDGE, ENTRY, HOME, IMAGE, LIB, OWNER, SSH_CONFIG, ImageBox
from tests.harness import eventually

# --- the user


def test_the_command_runs_as_the_owner_of_the_workspace(box: ImageBox) -> None:
    done = box.enter("sh", "-c", 'id -u; id -g; id -G; id -un; echo "$HOME $USER $LOGNAME"; touch /workspace/made')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["4242", "4343", "4343", "developer", f"{HOME} developer developer"]
    assert box.owner("/workspace/made") == OWNER
    assert done.stderr == ""


def test_the_command_has_no_capabilities(box: ImageBox) -> None:
    status = box.enter("cat", "/proc/self/status").stdout
    found = {line.split()[0]: line.split()[1] for line in status.splitlines() if line.startswith("Cap")}
    assert {found[name] for name in ("CapInh:", "CapPrm:", "CapEff:", "CapAmb:")} == {"0" * 16}


def test_a_workspace_of_root_makes_nobody_root(box: ImageBox) -> None:
    box.must("chown", "0:0", "/workspace")
    done = box.enter("sh", "-c", "id -u; id -g")
    assert done.stdout.split() == ["1000", "1000"]
    assert "/workspace belongs to root" in done.stderr
    assert "Hint:" in done.stderr


def test_a_rootless_engine_is_called_that(box: ImageBox) -> None:
    """Its user is root inside. (Here no other user is mapped, so the start fails later.)"""
    box.must("chown", "0:0", "/workspace")
    done = box.enter("id", "-u", prefix=("unshare", "--user", "--map-root-user"))
    assert "rootless engine: you are root in here" in done.stderr
    assert "--userns=keep-id" in done.stderr


def test_the_group_is_never_root_s_either(box: ImageBox) -> None:
    box.must("chown", "4242:0", "/workspace")
    assert box.enter("sh", "-c", "id -u; id -G").stdout.split() == ["4242", "1000"]


def test_no_workspace_at_all(box: ImageBox) -> None:
    box.must("rmdir", "/workspace")
    done = box.enter("id", "-u")
    assert (done.stdout.strip(), done.stderr) == ("1000", "")


def test_ids_can_be_given(box: ImageBox) -> None:
    done = box.enter("sh", "-c", "id -u; id -g", env={"DEVBOX_UID": "501", "DEVBOX_GID": "20"})
    assert done.stdout.split() == ["501", "20"]


@pytest.mark.parametrize(
    ("uid", "gid"), [("0", "1"), ("1", "0"), ("501", ""), ("", "20"), ("x", "1"), ("01", "1"), ("1 2", "3")]
)
def test_ids_that_make_no_sense_are_refused(box: ImageBox, uid: str, gid: str) -> None:
    done = box.enter("echo", "ran", env={"DEVBOX_UID": uid, "DEVBOX_GID": gid})
    assert done.returncode == 1
    assert done.stdout == ""
    assert "DEVBOX_UID" in done.stderr


def test_an_id_that_another_user_has(box: ImageBox) -> None:
    box.must("chown", "33:33", "/workspace")
    before = box.text("/etc/passwd").splitlines()
    done = box.enter("sh", "-c", 'id -u; id -g; id -un; id -gn; echo "$HOME"; touch ~/mine')
    assert done.stdout.split() == ["33", "33", "developer", "developer", HOME]
    assert box.owner(f"{HOME}/mine") == (33, 33)
    after = box.text("/etc/passwd").splitlines()
    assert sorted(line for line in before if not line.startswith("developer:")) == sorted(after[1:])
    assert box.must("stat", "-c", "%a %u", "/etc/passwd", "/etc/group").split() == ["644", "0"] * 2


def test_groups_given_to_the_container_stay_and_root_s_do_not(box: ImageBox) -> None:
    done = box.enter("id", "-G", prefix=("setpriv", "--groups", "0,4711"))
    assert sorted(done.stdout.split()) == ["4343", "4711"]


def test_started_as_somebody_else_it_changes_nobody(box: ImageBox) -> None:
    box.must("install", "-d", "-o", "777", "/home/other")
    as_other = ("setpriv", "--reuid", "777", "--regid", "777", "--clear-groups")
    done = box.enter("sh", "-c", "id -u; ls -A ~", env={"HOME": "/home/other"}, prefix=as_other)
    assert done.stdout.split()[0] == "777"
    assert ".claude.json" in done.stdout
    assert box.must("id", "-u", "developer").strip() == "1000"


def test_without_a_home_the_command_still_runs(box: ImageBox) -> None:
    as_other = ("setpriv", "--reuid", "777", "--regid", "777", "--clear-groups")
    done = box.enter("id", "-u", env={"HOME": "/"}, prefix=as_other)
    assert done.stdout.strip() == "777"
    assert "HOME='/' can't be written by UID 777" in done.stderr


# --- the command


def test_the_entry_point_becomes_the_command(box: ImageBox) -> None:
    done = box.run(["sh", "-c", f"echo $$; exec {ENTRY} sh -c 'echo $$; exit 7'"])
    first, second = done.stdout.split()
    assert first == second, "a signal to the container's command must reach the command"
    assert done.returncode == 7


def test_a_signal_reaches_the_command(box: ImageBox) -> None:
    script = 'trap "echo got TERM; exit 9" TERM; echo $$; while :; do sleep 0.05; done'
    argv = box.argv([ENTRY, "bash", "-c", script], {"HOME": "/root"})
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        box.must("kill", "-TERM", process.stdout.readline().strip())
        assert process.stdout.read() == "got TERM\n"
    assert process.returncode == 9


def test_the_stop_signal_ends_the_shell_of_a_terminal(box: ImageBox) -> None:
    """The image's default command on a terminal, as compose starts it: SIGTERM would not end it."""
    name = re.findall(r"^STOPSIGNAL SIG(\w+)$", (IMAGE / "Dockerfile.base").read_text(), re.MULTILINE)
    ours, theirs = pty.openpty()
    try:
        argv = ["setsid", "--ctty", *box.argv([ENTRY, "bash", "-l"], {"HOME": "/root"})]
        with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.write(ours, b"echo is $$ me\n")
            said = b""
            # up to the next prompt: a bash that is about to wait for input may miss a signal
            while not (found := re.search(rb"is (\d+) me\r?\n.*[$#] ", said, re.DOTALL)):
                assert select.select([ours], [], [], 20)[0], said
                said += os.read(ours, 4096)
            box.must("kill", f"-{name[0]}", found[1].decode())
            try:
                process.wait(5)
            finally:
                process.kill()
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_command_that_is_not_there(box: ImageBox) -> None:
    done = box.enter("no-such-thing")
    assert done.returncode == 127
    assert "no-such-thing" in done.stderr


# --- the home directory


def test_the_agents_of_a_new_home_have_the_shim(box: ImageBox) -> None:
    box.enter("true")
    pi = json.loads(box.text(f"{HOME}/.pi/agent/mcp.json"))
    claude = json.loads(box.text(f"{HOME}/.claude.json"))
    opencode = json.loads(box.text(f"{HOME}/.config/opencode/opencode.json"))
    assert pi["mcpServers"]["mempalace"]["command"] == "mp-shim"
    assert claude["mcpServers"]["mempalace"]["command"] == "mp-shim"
    assert opencode["mcp"]["mempalace"]["command"] == ["mp-shim"]
    assert {box.owner(path) for path in box.must("find", HOME).split()} == {OWNER}


def test_what_the_user_has_is_not_overwritten(box: ImageBox) -> None:
    box.must("sh", "-c", f"mkdir -p {HOME}/.pi/agent; echo mine > {HOME}/.claude.json; ln -s nowhere {HOME}/.npmrc")
    box.must("sh", "-c", f"mkdir -m 750 {HOME}/.config")
    box.enter("true")
    assert box.text(f"{HOME}/.claude.json") == "mine\n"
    assert box.must("readlink", f"{HOME}/.npmrc") == "nowhere\n"
    assert box.must("stat", "-c", "%a", f"{HOME}/.config") == "750\n"
    assert "mp-shim" in box.text(f"{HOME}/.pi/agent/mcp.json")


def test_a_newer_image_brings_its_packages_into_an_older_home(box: ImageBox) -> None:
    settings = "/etc/skel-devbox/.pi/agent/settings.json"
    box.must("sh", "-c", f"""echo '{{"packages": ["/opt/a"]}}' > {settings}""")
    box.enter("true")
    box.must("sh", "-c", f"""echo '{{"packages": ["/opt/a", "/mine"]}}' > {HOME}/.pi/agent/settings.json""")
    box.must("sh", "-c", f"""echo '{{"packages": ["/opt/a", "/opt/pi-studio"]}}' > {settings}""")
    assert box.enter("true").stderr == ""
    packages = json.loads(box.text(f"{HOME}/.pi/agent/settings.json"))["packages"]
    assert packages == ["/opt/a", "/mine", "/opt/pi-studio"]
    assert box.owner(f"{HOME}/.pi/agent/settings.json") == OWNER


def test_a_whole_home_of_the_host_is_warned_of(box: ImageBox) -> None:
    box.must("sh", "-c", "mkdir -p /mnt/me/.mempalace && mount --bind /mnt/me /workspace && chown 4242:4343 /workspace")
    done = box.enter("echo", "ran")
    assert done.stdout == "ran\n"
    assert "devbox: /workspace is a whole home of the host" in done.stderr


def test_a_second_start_changes_nothing(box: ImageBox) -> None:
    box.enter("true", env=BRIDGE)
    before, passwd = box.tree(HOME).replace(box.tree(SSH_CONFIG), ""), box.text("/etc/passwd")
    config = box.text(SSH_CONFIG)
    assert box.enter("true", env=BRIDGE).stderr == ""
    changed = set(box.tree(HOME).replace(box.tree(SSH_CONFIG), "").splitlines()) ^ set(before.splitlines())
    assert {line.split()[0] for line in changed} <= {f"{HOME}/.ssh-local"}, "only the file that is written anew"
    assert (box.text("/etc/passwd"), box.text(SSH_CONFIG)) == (passwd, config)


def test_another_owner_at_the_next_start_gets_the_home(box: ImageBox) -> None:
    box.enter("touch", f"{HOME}/mine")
    box.must("chown", "555:556", "/workspace")
    assert box.enter("sh", "-c", "id -u; echo more >> ~/mine").stdout.strip() == "555"
    assert {box.owner(path) for path in box.must("find", HOME).split()} == {(555, 556)}


def test_what_is_mounted_keeps_its_owners(box: ImageBox) -> None:
    box.must(
        "sh",
        "-c",
        f"""
        mkdir -p {HOME}/code {HOME}/fresh {HOME}/.config/deep
        mount -t tmpfs -o mode=700 code {HOME}/code
        mount -t tmpfs -o mode=755 fresh {HOME}/fresh
        touch {HOME}/code/old {HOME}/code/roots; chown 1000:1000 {HOME}/code {HOME}/code/old
        ln -s /etc/passwd {HOME}/link""",
    )
    box.enter("true")
    assert box.owner(f"{HOME}/code") == (1000, 1000)
    assert box.owner(f"{HOME}/code/old") == (1000, 1000)
    assert box.owner(f"{HOME}/code/roots") == (0, 0)
    assert box.owner(f"{HOME}/fresh") == OWNER, "a new volume comes as an empty directory of root's"
    assert box.owner(f"{HOME}/.config/deep") == OWNER
    assert box.owner(f"{HOME}/link") == OWNER
    assert box.owner("/etc/passwd") == (0, 0)


def test_a_home_that_is_a_volume_on_the_disk_of_what_is_mounted_into_it(box: ImageBox) -> None:
    box.must(
        "sh",
        "-c",
        f"""
        mount -t tmpfs disk /mnt
        mkdir /mnt/home /mnt/palace "/mnt/home/my [code] *" /mnt/home/.mempalace /mnt/code
        touch /mnt/palace/theirs /mnt/code/theirs /mnt/home/ours; chown -R 1000:1000 /mnt/palace /mnt/code
        mount --bind /mnt/home {HOME}
        mount --bind /mnt/palace {HOME}/.mempalace
        mount --bind /mnt/code "{HOME}/my [code] *" """,
    )
    assert box.enter("true").stderr == ""
    assert box.owner(f"{HOME}/ours") == OWNER
    assert box.owner(HOME) == OWNER
    for path in (".mempalace", ".mempalace/theirs", "my [code] *", "my [code] */theirs"):
        assert box.owner(f"{HOME}/{path}") == (1000, 1000)


def test_a_read_only_mount_is_named_and_does_not_end_it(box: ImageBox) -> None:
    box.must("sh", "-c", f"mkdir {HOME}/.ssh && mount -t tmpfs -o ro ssh {HOME}/.ssh")
    done = box.enter("echo", "ran")
    assert done.stdout == "ran\n"
    assert f"{HOME}/.ssh/config is missing and can't be written" in done.stderr


def test_containers_that_share_a_new_home(box: ImageBox) -> None:
    # each container edits an /etc of its own, but these share one: so let there be nothing to edit
    uid, gid = OWNER
    box.must("sed", "-i", "-E", f"s/^(developer:[^:]*:)[0-9]+:[0-9]+:/\\1{uid}:{gid}:/", "/etc/passwd")
    box.must("sed", "-i", "-E", f"s/^(developer:[^:]*:)[0-9]+:/\\1{gid}:/", "/etc/group")
    argv = box.argv([ENTRY, "true"], {"HOME": "/root"})
    started = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    said = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 6, said
    assert ".devbox." not in box.tree(HOME)
    for name in box.must("sh", "-c", "cd /etc/skel-devbox && find . -type f").split():
        assert box.text(f"{HOME}/{name}") == box.text(f"/etc/skel-devbox/{name}")


def test_a_file_that_vanishes_does_not_end_it(box: ImageBox) -> None:
    wrapped = f"#!/bin/sh\n/usr/bin/find \"$@\"\nprintf '{HOME}/gone\\0'\n"
    box.must("sh", "-c", 'printf %s "$0" > /usr/local/bin/find; chmod 755 /usr/local/bin/find', wrapped)
    box.must("touch", f"{HOME}/stays")
    done = box.enter("echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "can't give all of /home/developer to developer" in done.stderr
    assert box.owner(f"{HOME}/stays") == OWNER


def test_a_directory_of_somebody_else_s_is_not_used(box: ImageBox) -> None:
    box.must("mkdir", "-m", "777", "/tmp/devbox-4242")
    done = box.enter("echo", "ran", env=BRIDGE)
    assert done.returncode == 1
    assert "/tmp/devbox-4242 is not a directory of developer: remove it" in done.stderr


# --- the relay and the health check


def healthy(box: ImageBox, **env: str) -> tuple[int, str]:
    done = box.run([f"{LIB}/healthcheck.sh"], env=env)
    return done.returncode, done.stdout.strip()


def test_the_relay_runs_beside_the_command(box: ImageBox) -> None:
    log = f"{HOME}/.local/state/devbox/studio-expose.log"
    assert healthy(box) == (1, "still starting")
    done = box.enter("echo", "ran", env={"STUDIO_EXPOSE": "1"})
    assert done.stdout == "ran\n"
    assert log in done.stderr
    eventually(lambda: box.text(log) == "relaying as 4242\n", what="the relay's own words")
    pid = done.stderr.partition("(pid ")[2].partition(")")[0]
    assert box.run(["test", "-d", f"/proc/{pid}"]).returncode == 0


@pytest.mark.parametrize(
    ("word", "starts", "said"), [("True", True, ""), ("off", False, ""), ("maybe", False, "is neither yes nor no")]
)
def test_the_words_that_ask_for_the_relay(box: ImageBox, word: str, starts: bool, said: str) -> None:
    done = box.enter("echo", "ran", env={"STUDIO_EXPOSE": word})
    assert done.stdout == "ran\n"
    assert ("studio-expose runs" in done.stderr) == starts
    assert said in done.stderr
    assert bool(said or starts) == bool(done.stderr)
    if not starts:
        assert healthy(box, STUDIO_EXPOSE=word) == (0, "")


def test_health_is_the_end_of_the_start_and_the_relay(box: ImageBox) -> None:
    box.enter("true")
    assert healthy(box) == (0, "")
    assert healthy(box, STUDIO_EXPOSE="1")[0] == 1
    with subprocess.Popen(box.argv(["setpriv", "--reuid", "4242", "--regid", "4343", "--clear-groups", "bash", "-c",
                                    "exec -a /usr/local/bin/studio-expose sleep 100"])) as process:  # fmt: skip
        eventually(lambda: healthy(box, STUDIO_EXPOSE="1") == (0, ""), what="health with a relay")
        process.kill()
