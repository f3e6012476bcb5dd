from __future__ import annotations

import pytest

from mempalace_broker.broker.machine.backup_schedule import BackupSchedule

DAY = 86_400.0
NOW = 1_000_000.0


def test_no_schedule() -> None:
    schedule = BackupSchedule(0, {})
    assert not schedule.on
    assert schedule.as_json(NOW) is None


def test_the_first_one_is_due_at_once_and_the_next_a_day_after_its_begin() -> None:
    schedule = BackupSchedule(DAY, {})
    assert schedule.due_in(NOW) == 0
    schedule.made(NOW, {"name": "n", "bytes": 7, "tried": True})
    assert schedule.due_in(NOW + 100) == DAY - 100
    assert schedule.due_in(NOW + DAY) == 0


def test_another_broker_goes_on_with_it() -> None:
    before = BackupSchedule(DAY, {})
    before.made(NOW, {"name": "n", "path": "/s/n", "bytes": 7, "pause_s": 0.1})
    said = BackupSchedule(DAY, before.note()).as_json(NOW + 60)
    assert said is not None
    assert said["due_in_s"] == DAY - 60
    assert (said["name"], said["path"], said["bytes"], said["made_at"]) == ("n", "/s/n", 7, NOW)


def test_one_that_failed_is_tried_again_within_the_hour_and_the_last_good_one_stays_known() -> None:
    schedule = BackupSchedule(DAY, {})
    schedule.made(NOW, {"name": "good"})
    schedule.failed(NOW + DAY, "no room")
    assert schedule.due_in(NOW + DAY + 60) == 3600 - 60
    again = BackupSchedule(DAY, schedule.note())
    assert again.due_in(NOW + DAY + 60) == 3600 - 60
    said = again.as_json(NOW + DAY)
    assert said is not None
    assert (said["error"], said["name"], said["made_at"]) == ("no room", "good", NOW)
    again.made(NOW + 2 * DAY, {"name": "better"})
    assert (again.as_json(NOW + 2 * DAY) or {})["error"] is None


def test_nothing_changed_is_as_good_as_a_new_one_but_not_called_one() -> None:
    schedule = BackupSchedule(DAY, {})
    assert schedule.changed_since(1.0, NOW), "there is none yet"
    assert not schedule.changed_since(0.0, NOW), "there is no palace yet"
    schedule.made(NOW, {"name": "n"})
    assert not schedule.changed_since(NOW - 1, NOW + DAY)
    assert schedule.changed_since(NOW + 1, NOW + DAY)
    schedule.skipped(NOW + DAY)
    assert schedule.due_in(NOW + DAY + 1) == DAY - 1
    assert (schedule.as_json(NOW + DAY) or {})["made_at"] == NOW


def test_a_palace_that_is_not_there_yet_is_looked_for_again_soon() -> None:
    schedule = BackupSchedule(DAY, {})
    schedule.skipped(NOW)
    assert schedule.due_in(NOW) == 60


def test_what_failed_is_made_whatever_has_changed() -> None:
    schedule = BackupSchedule(DAY, {"made_at": NOW, "tried_at": NOW + DAY, "error": "no room"})
    assert schedule.changed_since(NOW - 1, NOW + DAY)


def test_what_was_written_after_the_clock_went_back_is_not_taken_for_older() -> None:
    schedule = BackupSchedule(DAY, {})
    schedule.made(NOW + 365 * DAY, {"name": "of the wrong year"})
    assert schedule.due_in(NOW) == 0
    assert schedule.changed_since(NOW - 1, NOW)
    schedule.made(NOW, {"name": "of the right one"})
    assert not schedule.changed_since(NOW - 1, NOW + 1)


def test_a_pause_that_began_before_the_clock_went_back_is_over() -> None:
    schedule = BackupSchedule(DAY, {})
    schedule.made(NOW, {"name": "n"})
    schedule.skipped(NOW + 365 * DAY)
    assert schedule.due_in(NOW + DAY) == 0


@pytest.mark.parametrize("note", [{"made_at": NOW + DAY}, {"made_at": "soon"}, {"tried_at": None, "error": 5}])
def test_a_clock_that_went_back_and_a_note_that_makes_no_sense_mean_now(note: dict[str, object]) -> None:
    assert BackupSchedule(DAY, note).due_in(NOW) == 0
