"""Integrations that open the palace in processes of their own are found by their configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from mempalace_broker.doctor.integrations import find_integrations


@pytest.mark.parametrize(
    ("path", "text", "name"),
    [
        (".config/opencode/opencode.json", '{"plugin": ["opencode-mempalace@1.2"]}', "the plugin opencode-mempalace"),
        (
            ".config/opencode/opencode.jsonc",
            '// mine\n{"plugins": ["opencode-mempalace"]}',
            "the plugin opencode-mempalace",
        ),
        (".hermes/config.yaml", "memory:\n  provider: mempalace\n", "the memory provider of Hermes"),
        (".hermes/mempalace.json", '{"palace_path": "~/.mempalace/palace"}', "the memory provider of Hermes"),
    ],
)
def test_one_that_is_set_up_is_named_with_its_file(tmp_path: Path, path: str, text: str, name: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    (found,) = find_integrations(str(tmp_path), {})
    assert (found.name, found.path) == (name, str(file))


def test_what_does_not_name_mempalace_or_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".config/opencode/opencode.json").mkdir(parents=True)
    (tmp_path / ".hermes").mkdir()
    (tmp_path / ".hermes/config.yaml").write_text("memory:\n  provider: mem0\n")
    assert find_integrations(str(tmp_path), {}) == []
    elsewhere = tmp_path / "x" / "opencode"
    elsewhere.mkdir(parents=True)
    (elsewhere / "opencode.json").write_text("opencode-mempalace")
    assert len(find_integrations(str(tmp_path), {"XDG_CONFIG_HOME": str(tmp_path / "x")})) == 1
