"""The way to the host that the entry point sets up: an alias of ssh with one shared connection."""

from __future__ import annotations

import pytest

from devbox.tests.imagebox import BRIDGE, HOME, SSH_CONFIG, ImageBox


def ssh_settings(box: ImageBox) -> dict[str, str]:
    """The settings that ssh has for the alias `host`, as developer."""
    said = box.enter("ssh", "-G", "-F", SSH_CONFIG, "host", env=BRIDGE).stdout
    return {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in said.splitlines() if " " in line}


def test_the_bridge_is_an_alias_with_one_shared_connection(box: ImageBox) -> None:
    made = box.enter("true", env=BRIDGE)
    found = ssh_settings(box)
    assert (found["hostname"], found["user"], found["port"]) == ("host.docker.internal", "me", "2222")
    assert (found["controlmaster"], found["controlpersist"]) == ("auto", "yes")
    assert found["controlpath"].startswith("/tmp/devbox-4242/cm-")
    assert len(found["controlpath"]) + 17 <= 103, "macOS has the shortest limit"
    assert found["identityfile"] == f"{HOME}/.ssh-local/id_ed25519"
    key = box.text(f"{HOME}/.ssh-local/id_ed25519.pub")
    assert key in made.stderr
    assert box.must("stat", "-c", "%a", f"{HOME}/.ssh-local", SSH_CONFIG, "/tmp/devbox-4242").split() == [
        "700",
        "600",
        "700",
    ]


def test_without_a_user_there_is_no_bridge(box: ImageBox) -> None:
    assert box.enter("ls", "-A", env={"HOST_SSH_USER": ""}).stderr == ""
    assert "no" in box.must("sh", "-c", f"test -e {HOME}/.ssh-local || echo no")


def test_a_bridge_that_is_no_longer_wanted_goes(box: ImageBox) -> None:
    box.enter("true", env=BRIDGE)
    box.enter("true")
    assert box.run(["test", "-e", SSH_CONFIG]).returncode == 1
    assert box.run(["test", "-e", f"{HOME}/.ssh-local/id_ed25519"]).returncode == 0


def test_a_configuration_of_the_user_s_own_stays(box: ImageBox) -> None:
    box.must("sh", "-c", f"mkdir {HOME}/.ssh-local; echo 'Host host' > {SSH_CONFIG}")
    done = box.enter("true", env=BRIDGE)
    assert "is your own: left as it is" in done.stderr
    box.enter("true")
    assert box.text(SSH_CONFIG) == "Host host\n"


def test_settings_of_the_user_s_own_win(box: ImageBox) -> None:
    box.must("sh", "-c", f"mkdir {HOME}/.ssh-local; printf 'Host host\n  ConnectTimeout 33\n' > {SSH_CONFIG}.local")
    assert ssh_settings(box)["connecttimeout"] == "33"


def test_a_key_of_the_user_s_own_is_taken(box: ImageBox) -> None:
    box.must("sh", "-c", f"mkdir -p {HOME}/.ssh; echo key > {HOME}/.ssh/id_rsa")
    assert ssh_settings(box)["identityfile"] == f"{HOME}/.ssh/id_rsa"
    assert box.run(["test", "-e", f"{HOME}/.ssh-local/id_ed25519"]).returncode == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"HOST_SSH_USER": "me\n  ProxyCommand touch /tmp/pwned"},
        {"HOST_SSH_HOST": "-oProxyCommand=x"},
        {"HOST_SSH_PORT": "70000"},
        {"HOST_SSH_KEY": "/no/such/key"},
    ],
)
def test_settings_that_make_no_sense_give_no_bridge_and_a_container(box: ImageBox, wrong: dict[str, str]) -> None:
    done = box.enter("echo", "ran", env=BRIDGE | wrong)
    assert done.stdout == "ran\n"
    assert next(iter(wrong)) in done.stderr
    assert box.run(["test", "-e", SSH_CONFIG]).returncode == 1
