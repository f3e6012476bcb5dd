"""What is done about a watched file: every save is drawn, and no half-written one complained of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pi_devbox.dotwatch.subject import TICK_S, Stamp, Step, Subject

STAMP = Stamp(1_000, 5, 7)


def drawn(*, trouble: str = "") -> Subject:
    """A subject whose content b"a" was drawn at time 0."""
    subject = Subject()
    assert subject.to_read(STAMP, 0.0)
    assert subject.seen(b"a", picture=False) is Step.DRAW
    subject.drawn(trouble)
    return subject


def test_a_save_is_drawn_and_then_left_alone() -> None:
    subject = drawn()
    assert subject.seen(b"a", picture=True) is Step.NOTHING
    assert subject.seen(b"b", picture=True) is Step.DRAW


def test_the_content_is_read_while_a_stamp_may_hide_a_second_save() -> None:
    subject = drawn()
    assert subject.to_read(STAMP, TICK_S - 0.1)
    assert subject.to_read(STAMP, TICK_S)
    assert not subject.to_read(STAMP, TICK_S + 0.1)
    for changed in (STAMP._replace(mtime_ns=999), STAMP._replace(size=6), STAMP._replace(inode=8)):
        assert subject.to_read(changed, 100.0)
        assert subject.to_read(changed, 160.0), "the first look that is sure to be after the stamp's tick"
        assert not subject.to_read(changed, 161.0)


def test_trouble_is_told_once_and_only_if_it_stays() -> None:
    subject = drawn(trouble="syntax error")
    assert subject.seen(b"a", picture=False) is Step.TELL
    subject.told()
    assert subject.seen(b"a", picture=False) is Step.NOTHING
    subject = drawn(trouble="syntax error")
    assert subject.seen(b"ab", picture=False) is Step.DRAW
    subject.drawn("")
    assert subject.unchanged(picture=True) is Step.NOTHING


def test_a_picture_that_was_deleted_is_drawn_again_but_not_from_a_broken_file() -> None:
    assert drawn().unchanged(picture=False) is Step.DRAW
    broken = drawn(trouble="no")
    broken.told()
    assert broken.unchanged(picture=False) is Step.NOTHING


def test_a_file_that_is_gone_is_told_once_and_drawn_when_it_is_back() -> None:
    subject = drawn()
    assert [subject.missing() for _ in range(4)] == [Step.NOTHING, Step.GONE, Step.NOTHING, Step.NOTHING]
    assert subject.to_read(STAMP, 50.0)
    assert subject.seen(b"a", picture=True) is Step.DRAW


def test_the_gap_of_a_save_by_renaming_is_no_news() -> None:
    subject = drawn()
    for _ in range(3):
        assert subject.missing() is Step.NOTHING
        assert subject.seen(b"a", picture=True) is Step.NOTHING


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
    disk, subject = Disk(), Subject()
    picture, told = b"", b""
    now, next_look = 0.0, 0.0

    def look(at: float) -> None:
        nonlocal picture, told
        if disk.content is None:
            step = subject.missing()
        elif subject.to_read(disk.stamp, at):
            step = subject.seen(disk.content, picture=bool(picture))
        else:
            step = subject.unchanged(picture=bool(picture))
        if step is Step.DRAW:
            assert disk.content is not None
            good = disk.content.startswith(b"ok")
            picture = disk.content if good else picture
            subject.drawn("" if good else "bad")
            told = b""
        elif step is Step.TELL:
            told = disk.content or b""
            subject.told()
        elif step is Step.GONE:
            told = b"gone"

    for pause, content in history:
        now += pause
        while next_look <= now:
            look(next_look)
            next_look += every
        disk.save(content, now, tick)
    for _ in range(3):
        look(next_look)
        next_look += every
    if disk.content is None:
        assert told == b"gone"
    elif disk.content.startswith(b"ok"):
        assert picture == disk.content
    else:
        assert told == disk.content
