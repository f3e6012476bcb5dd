"""The file for a bug report: complete, and without contents or secrets."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from mempalace_broker.cli import main
from mempalace_broker.errors import EXIT_OK, EXIT_STATE_ROOT
from mempalace_broker.system.paths import StateFiles
from mempalace_broker.system.private import VARIABLE
from mempalace_broker.system.token_file import HTTP_FILE, ensure_token, private_token

LOG = """\
2026-11-27T09:00:00.000 INFO engine 1 started: pid 7, {home}/venv/bin/python (PATH)
2026-11-27T09:00:01.000 INFO engine: Filed: my secret diary of {home}
2026-11-27T09:00:02.000 INFO engine: Traceback (most recent call last):
2026-11-27T09:00:02.000 INFO engine:   File "{home}/x.py", line 7, in my_secret
2026-11-27T09:00:02.000 INFO engine: chromadb.errors.InternalError: my secret diary
2026-11-27T09:00:03.000 WARNING refused {token} of postgres://me:pa"ss@db
2026-11-27T09:00:04.000 WARNING no answer from http://me:hunter2@proxy:3128/, nor at http://127.0.0.1:8765/a@b
2026-11-27T09:00:05.000 WARNING refused {http}
2026-11-27T09:00:06.000 WARNING refused {own}
"""


@pytest.fixture
def palace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A palace that a broker served once, in a HOME of its own; the working directory is that HOME."""
    for name in [name for name in os.environ if name.startswith("MEMPAL")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "private"))
    monkeypatch.chdir(tmp_path)
    files = StateFiles(str(tmp_path), str(tmp_path / "palace"), env=dict(os.environ))
    files.prepare()
    assert not files.private.make()
    token, http = ensure_token(files.root), private_token(files.private.file(HTTP_FILE))
    own = private_token(files.private.folder("hub").file("token"))
    Path(files.log).write_text(LOG.format(home=tmp_path, token=token, http=http, own=own), encoding="utf-8")
    settings = "[broker]\nidle_s = 7\nenv = { MEMPALACE_PGVECTOR_DSN = 'postgres://me:pa\"ss@db' }\n"
    (tmp_path / "private" / "config.toml").write_text(settings, encoding="utf-8")
    return files.palace


def parts(path: Path) -> dict[str, str]:
    with tarfile.open(path) as tar:
        return {entry.name: tar.extractfile(entry).read().decode() for entry in tar}  # type: ignore[union-attr]


def test_the_parts_and_that_only_the_user_can_read_them(
    palace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bugreport", "--palace", palace]) == EXIT_OK
    (path,) = tmp_path.glob("mempalace-broker-report-*.tar.gz")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = parts(path)
    assert json.loads(found["settings.json"])["idle_s"]["value"] == 7
    assert json.loads(found["status.json"])["running"] is False
    assert json.loads(found["machine.json"])["python"]
    assert json.loads(found["doctor.json"])
    said = capsys.readouterr().out
    assert all(name in said for name in [path.name, *found])


def test_no_contents_and_no_secrets(palace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bugreport", "--json", "--output", "report", "--palace", palace]) == EXIT_OK
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == str(tmp_path / "report")
    found = parts(tmp_path / "report")
    assert {name: len(text.encode()) for name, text in found.items()} == said["parts"]
    whole = "\n".join(found.values())
    for secret in (str(tmp_path), "secret diary", "postgres://me", (tmp_path / "broker-token").read_text().strip()):
        assert secret not in whole
    log = found["broker.log"].splitlines()
    assert log[0].endswith("engine 1 started: pid 7, ~/venv/bin/python (PATH)")
    assert log[1].endswith("engine: (a line of the engine, not shown)")
    assert log[3].endswith('engine:   File "~/x.py", line 7')
    assert log[4].endswith("engine: chromadb.errors.InternalError")
    assert log[5].endswith("WARNING refused (secret) of (secret)")
    assert log[6].endswith("from http://me:(secret)@proxy:3128/, nor at http://127.0.0.1:8765/a@b")
    assert log[7].endswith("WARNING refused (secret)")
    assert log[8].endswith("WARNING refused (secret)")


def test_a_file_that_is_there_is_left_alone(palace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    assert main(["bugreport", "--output", "mine", "--palace", palace]) == EXIT_STATE_ROOT
    assert "mine: File exists" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "mine"
