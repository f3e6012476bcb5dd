"""Decisions about a watched file: every save is drawn, and a half-written one is not reported."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pi_devbox.dotwatch.watched import SETTLE_S, TICK_S, Action, Stamp, WatchedFile

STAMP = Stamp(1_000, 5, 7)


def drawn(*, error: str = "") -> WatchedFile:
    """A file whose content b"a" was drawn at time 0."""
    file = WatchedFile()
    assert file.to_read(STAMP, 0.0)
    assert file.seen(b"a", 0.0, picture=False) is Action.DRAW
    file.drawn(error)
    return file


def test_a_save_is_drawn_and_then_left_alone() -> None:
    file = drawn()
    assert file.seen(b"a", 1.0, picture=True) is Action.NOTHING
    assert file.seen(b"b", 1.0, picture=True) is Action.DRAW


def test_a_save_during_a_drawing_is_drawn_in_its_place() -> None:
    file = drawn()
    assert file.seen(b"b", 1.0, picture=True) is Action.DRAW
    assert file.seen(b"b", 2.0, picture=False) is Action.NOTHING, "it is under way"
    assert file.seen(b"c", 3.0, picture=True) is Action.DRAW
    file.drawn("")
    assert file.seen(b"c", 4.0, picture=True) is Action.NOTHING


def test_the_content_is_read_while_a_stamp_may_hide_a_second_save() -> None:
    file = drawn()
    assert file.to_read(STAMP, TICK_S - 0.1)
    assert file.to_read(STAMP, TICK_S)
    assert not file.to_read(STAMP, TICK_S + 0.1)
    for changed in (STAMP._replace(mtime_ns=999), STAMP._replace(size=6), STAMP._replace(inode=8)):
        assert file.to_read(changed, 100.0)
        assert file.to_read(changed, 160.0), "the first look that is sure to be after the stamp's tick"
        assert not file.to_read(changed, 161.0)


def test_an_error_is_reported_once_and_only_if_it_stays() -> None:
    file = drawn(error="syntax error")
    assert file.due == SETTLE_S
    assert file.seen(b"a", SETTLE_S / 2, picture=False) is Action.NOTHING, "it may be half a save"
    assert file.seen(b"a", file.due, picture=False) is Action.REPORT
    file.reported()
    assert file.seen(b"a", 1.0, picture=False) is Action.NOTHING
    file = drawn(error="syntax error")
    assert file.seen(b"ab", 1.0, picture=False) is Action.DRAW
    file.drawn("")
    assert file.unchanged(2.0, picture=True) is Action.NOTHING


def test_a_picture_that_was_deleted_is_drawn_again_but_not_from_a_broken_file() -> None:
    assert drawn().unchanged(1.0, picture=False) is Action.DRAW
    broken = drawn(error="no")
    broken.reported()
    assert broken.unchanged(1.0, picture=False) is Action.NOTHING


def test_a_file_that_is_gone_is_told_once_and_drawn_when_it_is_back() -> None:
    file = drawn()
    looks = [file.missing(now) for now in (1.0, 2.0, 3.0, 4.0)]
    assert looks == [Action.NOTHING, Action.GONE, Action.NOTHING, Action.NOTHING]
    assert file.to_read(STAMP, 50.0)
    assert file.seen(b"a", 50.0, picture=True) is Action.DRAW


def test_the_gap_of_a_save_by_renaming_is_not_reported() -> None:
    file = drawn(error="syntax error")
    for now in (1.0, 2.0, 3.0):
        assert file.missing(now) is Action.NOTHING
        assert file.due > now, "the error waits for the next look"
        assert file.seen(b"a", now, picture=True) is Action.NOTHING
    assert file.seen(b"a", 4.0, picture=True) is Action.REPORT


class Disk:
    """A file whose stamps advance in ticks, as on a real disk."""

    def __init__(self) -> None:
        self.content: bytes | None = b""
        self.stamp = Stamp(0, 0, 1)

    def save(self, content: bytes | None, now: float, tick: float) -> None:
        self.content = content
        self.stamp = Stamp(int(now / tick), len(content or b""), 1)


saves = st.tuples(st.floats(0, 2), st.sampled_from([None, b"", b"ok1", b"ok2", b"bad", b"bae"]))


@given(history=st.lists(saves, max_size=30), tick=st.sampled_from([0.004, 1.0, 2.0]), every=st.floats(0.1, 20))
def test_whatever_happens_the_last_save_ends_in_a_picture_or_in_words(
    history: list[tuple[float, bytes | None]], tick: float, every: float
) -> None:
    disk, file = Disk(), WatchedFile()
    picture, reported = b"", b""
    now, next_look = 0.0, 0.0

    def look(at: float) -> None:
        nonlocal picture, reported
        if disk.content is None:
            action = file.missing(at)
        elif file.to_read(disk.stamp, at):
            action = file.seen(disk.content, at, picture=bool(picture))
        else:
            action = file.unchanged(at, picture=bool(picture))
        if action is Action.DRAW:
            assert disk.content is not None
            good = disk.content.startswith(b"ok")
            picture = disk.content if good else picture
            file.drawn("" if good else "bad")
            reported = b""
        elif action is Action.REPORT:
            reported = disk.content or b""
            file.reported()
        elif action is Action.GONE:
            reported = b"gone"

    def looks_until(end: float) -> None:
        """Every look of a poll, and those that an error asks for, as the caller makes them."""
        nonlocal next_look
        while next_look <= end:
            look(next_look)
            next_look += every
            while file.error and file.due < next_look and file.due <= end:
                look(file.due)

    for pause, content in history:
        now += pause
        looks_until(now)
        disk.save(content, now, tick)
    looks_until(next_look + 2 * every + SETTLE_S)
    if disk.content is None:
        assert reported == b"gone"
    elif disk.content.startswith(b"ok"):
        assert picture == disk.content
    else:
        assert reported == disk.content
