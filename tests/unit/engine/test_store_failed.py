"""Which answers make the worker open the palace again before its next write."""

from __future__ import annotations

import pytest

from mempalace_broker.engine.parking import store_failed


@pytest.mark.parametrize(
    "text",
    [
        "Error in compaction: Failed to apply logs to the metadata segment",
        "Error sending backfill request to compactor: Failed to apply logs to the metadata segment",
        "Query error: Database error: error returned from database: (code: 13) database or disk is full",
        "Query error: Database error: error returned from database: (code: 5) database is locked",
    ],
)
def test_words_of_chroma(text: str) -> None:
    assert store_failed(b'{"success": false, "error": "' + text.encode() + b'"}')


def test_other_answers() -> None:
    assert not store_failed(b'{"success": true}')
    assert not store_failed(b'{"success": false, "error": "content is empty"}')
    assert not store_failed(b"Error in compaction" + bytes(5000))
