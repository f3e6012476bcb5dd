"""Two halves in one process, on a folder that both see."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.cli.selftest import half as halves
from mempalace_broker.cli.selftest import share
from mempalace_broker.cli.selftest.check import Skip, Verdict
from mempalace_broker.cli.selftest.half import Half
from mempalace_broker.errors import StateRootError

BENCH: Any = SimpleNamespace(note=lambda _: None)


def both(folder: Path, do: Callable[[Half], object]) -> list[tuple[Half, object]]:
    """Let two halves do the same at the same time; each with its result or its error."""
    pair = [Half(folder), Half(folder)]
    results: dict[str, object] = {}

    def run(half: Half) -> None:
        try:
            results[half.me] = do(half)
        except (OSError, Skip) as exc:
            results[half.me] = exc
        finally:
            half.close()

    threads = [threading.Thread(target=run, args=(half,)) for half in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [(half, results[half.me]) for half in pair]


def met(measure: Callable[[Half, Any], object]) -> Callable[[Half], object]:
    """One measure of two halves that have met."""

    def run(half: Half) -> object:
        half.meet(20)
        return measure(half, BENCH)

    return run


def everything(half: Half) -> list[Verdict]:
    return [check.judge(check.measure(BENCH)).verdict for check in share.share_checks(half)]


def test_two_halves_of_one_disk_find_nothing_and_leave_nothing(tmp_path: Path) -> None:
    stale = Half(tmp_path)
    stale.make(f"half-{stale.me}")  # of a half that was killed
    (first, one), (second, two) = both(tmp_path, everything)
    assert one == two == [Verdict.OK] * len(share.share_checks(first))
    assert first.other == second.me
    assert not (tmp_path / halves.FOLDER).exists()


def test_a_share_that_goes_on_showing_what_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "SEEN_S", 0.1)
    monkeypatch.setattr(Half, "remove", lambda *_: None)
    pair = both(tmp_path, met(share._measure_removal))
    assert [found for _, found in pair] == [share.Removal("ok", None)] * 2


def test_records_that_the_other_side_never_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "SEEN_S", 0.05)
    monkeypatch.setattr(share, "ROUNDS", 2)
    monkeypatch.setattr(share, "read_fresh", lambda *_: b"")
    pair = both(tmp_path, met(share._measure_records))
    assert [found for _, found in pair] == [(None, None)] * 2


def test_names_that_both_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Half.make
    monkeypatch.setattr(Half, "make", lambda half, name: None if name.startswith("won-") else make(half, name))
    pair = both(tmp_path, met(share._measure_race))
    assert [found for _, found in pair] == [(share.RACES, share.RACES)] * 2


def test_a_half_alone_says_so_and_cleans_up(tmp_path: Path) -> None:
    half = Half(tmp_path)
    with pytest.raises(Skip, match="nobody came"):
        half.meet(0.01)
    with pytest.raises(Skip, match="nobody came"):
        half.step("next")
    half.close()
    assert list(tmp_path.iterdir()) == []


def test_a_share_that_cant_be_written_to_is_named(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.write_text("a file")
    with pytest.raises(StateRootError, match="--share") as refused:
        Half(share)
    assert str(share / halves.FOLDER) in refused.value.message


def test_a_link_in_the_folders_place_is_not_followed(tmp_path: Path) -> None:
    share, home = tmp_path / "share", tmp_path / "home"
    for folder in (share, home):
        folder.mkdir()
    (share / halves.FOLDER).symlink_to(home)
    half = Half(share)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        half.meet(1)
    assert list(home.iterdir()) == []
    half.close()


def test_a_half_that_leaves_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "STEP_S", 0.5)

    def meet_and_leave(half: Half) -> None:
        half.meet(20)
        if half.leads:
            half.step("one that the other never takes")

    results = {half.leads: result for half, result in both(tmp_path, meet_and_leave)}
    assert isinstance(results[True], Skip)
    assert not (tmp_path / halves.FOLDER).exists()
