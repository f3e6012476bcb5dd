"""Which token a client shows: of a named file, of the record, of the state root."""

from __future__ import annotations

from pathlib import Path

import pytest

from mempalace_broker.errors import UsageError
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.protocol.record import DiscoveryRecord, encode
from mempalace_broker.route.tcp_token import find_token
from mempalace_broker.system.paths import Context, StateFiles
from mempalace_broker.system.token_file import VARIABLE, ensure_token
from tests.tcptools import TOKEN

OTHER = "d0" * 32


def test_where_the_token_comes_from(tmp_path: Path) -> None:
    files = StateFiles(str(tmp_path), str(tmp_path / "palace"))

    def token(**env: str) -> str:
        return find_token(Context(PalaceIdentity(files.palace, "", "flag"), env, files=files))

    assert token() == ""
    made = ensure_token(str(tmp_path))
    assert token() == made
    record = DiscoveryRecord(record="ab", pid=1, endpoints=["unix:/x"], palace={"path": "/x"}, token=OTHER)
    Path(files.record).write_bytes(encode(record))
    assert token() == OTHER
    named = tmp_path / "mine"
    with pytest.raises(UsageError, match="is not there"):
        token(**{VARIABLE: str(named)})
    named.write_text(TOKEN + "\n")
    named.chmod(0o600)
    assert token(**{VARIABLE: str(named)}) == TOKEN
