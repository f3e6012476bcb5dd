"""The engine's life as dialogues; and a state machine: one engine at a time, no restart loop, always a way out."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mempalace_broker.broker.engine_process import how as in_words
from mempalace_broker.broker.machine.supervisor import EngineAction, EngineState, Policy, Supervisor


def new(policy: Policy | None = None) -> Supervisor:
    return Supervisor(policy or Policy(), rng=lambda: 1.0)


def ready(policy: Policy | None = None) -> Supervisor:
    supervisor = new(policy)
    supervisor.start(0.0)
    supervisor.spawned(0.0, 7)
    supervisor.hello(0.0)
    supervisor.ready(0.0)
    return supervisor


def state_of(supervisor: Supervisor) -> EngineState:
    """Keeps mypy from taking the state for settled by an earlier assertion."""
    return supervisor.state


def due(supervisor: Supervisor) -> list[EngineAction]:
    """Let time pass until the next deadline."""
    deadline = supervisor.next_deadline()
    assert deadline is not None
    return supervisor.tick(deadline)


def test_the_way_up() -> None:
    supervisor = new()
    assert state_of(supervisor) == EngineState.DOWN
    assert supervisor.start(1.0) == [EngineAction.SPAWN]
    assert supervisor.start(1.0) == [], "on its way"
    assert state_of(supervisor) == EngineState.LOCKING
    supervisor.spawned(1.0, 7)
    assert (supervisor.state, supervisor.pid, supervisor.generation) == (EngineState.STARTING, 7, 1)
    supervisor.hello(2.0)
    assert state_of(supervisor) == EngineState.WARMING
    supervisor.ready(3.0)
    assert state_of(supervisor) == EngineState.READY
    assert supervisor.alive
    assert supervisor.start(4.0) == []


def test_a_lock_that_is_held_is_tried_again_and_its_holder_ended_when_its_grace_is_over() -> None:
    supervisor = new(Policy(lock_poll_s=0.5, orphan_grace_s=2.0))
    supervisor.start(0.0)
    effects: list[EngineAction] = []
    now = 0.0
    while now < 5.0:
        effects += supervisor.lock_busy(now, "pid 9")
        now += 0.5
        assert supervisor.tick(now) == [EngineAction.SPAWN]
    assert effects == [EngineAction.KILL_ORPHAN, EngineAction.KILL_ORPHAN]
    assert "pid 9" in supervisor.reason


@pytest.mark.parametrize("is_engine", [False, True])
def test_who_had_the_lock_is_not_the_reason_for_what_comes_after(is_engine: bool) -> None:
    supervisor = new()
    supervisor.start(0.0)
    supervisor.lock_busy(0.0, "pid 9 (mempalace repair)", is_engine=is_engine)
    assert "pid 9" in supervisor.reason
    supervisor.tick(1.0)
    supervisor.spawned(1.0, 10)
    assert supervisor.reason == ""
    supervisor.exited(2.0, "signal 9 (SIGKILL)")
    supervisor.tick(10.0)
    supervisor.spawned(10.0, 11)
    assert "signal 9" in supervisor.reason


def test_ending_means_term_then_grace_then_kill() -> None:
    supervisor = ready()
    assert supervisor.end(10.0, "it hangs") == [EngineAction.TERMINATE]
    assert supervisor.end(10.0, "again") == []
    assert supervisor.tick(11.9) == []
    assert supervisor.tick(12.0) == [EngineAction.KILL]
    assert state_of(supervisor) == EngineState.KILLING
    assert supervisor.next_deadline() is None
    assert supervisor.tick(99.0) == []
    supervisor.exited(13.0, "signal 9")
    assert (supervisor.state, supervisor.reason, supervisor.pid) == (EngineState.BACKOFF, "it hangs", 0)
    assert due(supervisor) == [EngineAction.SPAWN]


def test_words_of_an_engine_that_is_being_ended_do_not_revive_it() -> None:
    supervisor = ready()
    supervisor.end(1.0, "it hangs")
    supervisor.hello(1.0)
    supervisor.ready(1.0)
    assert state_of(supervisor) == EngineState.STOPPING


@pytest.mark.parametrize("said_hello", [True, False])
def test_a_start_has_a_limit(said_hello: bool) -> None:
    supervisor = new()
    supervisor.start(0.0)
    supervisor.spawned(0.0, 7)
    if said_hello:
        supervisor.hello(50.0)
    assert supervisor.tick(119.9) == []
    assert supervisor.tick(120.0) == [EngineAction.TERMINATE]
    assert "MEMPALACE_MCP_INIT_TIMEOUT_MS" in supervisor.reason


def test_no_limit_on_the_start() -> None:
    supervisor = new(Policy(init_s=0.0))
    supervisor.start(0.0)
    supervisor.spawned(0.0, 7)
    assert supervisor.next_deadline() is None


def test_the_pause_before_the_next_start_doubles_up_to_a_cap_with_jitter() -> None:
    pauses = []
    supervisor = new(Policy(budget=99, backoff_base_s=0.1, backoff_cap_s=0.5))
    supervisor.start(0.0)
    for _ in range(5):
        supervisor.spawned(0.0, 7)
        supervisor.exited(0.0, "status 1")
        pauses.append(supervisor.next_deadline())
        due(supervisor)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])
    early = Supervisor(Policy(), rng=lambda: 0.0)
    early.start(0.0)
    early.spawned(0.0, 7)
    early.exited(0.0, "status 1")
    assert early.next_deadline() == pytest.approx(0.05)


def test_the_budget_opens_the_circuit_and_a_probe_closes_it() -> None:
    supervisor = new(Policy(budget=2, probe_s=10.0))
    supervisor.start(0.0)
    for _ in range(2):
        supervisor.spawned(1.0, 7)
        supervisor.exited(1.0, "status 1")
        if supervisor.state == EngineState.BACKOFF:
            due(supervisor)
    assert state_of(supervisor) == EngineState.UNAVAILABLE
    assert supervisor.hopeless
    assert "status 1" in supervisor.reason
    assert supervisor.hint
    assert supervisor.tick(10.9) == []
    assert supervisor.tick(11.0) == [EngineAction.SPAWN]
    assert state_of(supervisor) == EngineState.LOCKING
    supervisor.spawned(11.0, 8)
    supervisor.exited(11.0, "status 1")
    assert state_of(supervisor) == EngineState.UNAVAILABLE
    assert due(supervisor) == [EngineAction.SPAWN]
    supervisor.spawned(21.0, 9)
    supervisor.ready(21.0)
    assert (supervisor.state, supervisor.reason, supervisor.hint) == (EngineState.READY, "", "")


def test_an_engine_that_gets_ready_is_replaced_however_often_it_dies_with_growing_pauses_until_it_works() -> None:
    supervisor, now, pauses = ready(Policy(budget=2, backoff_base_s=0.1, backoff_cap_s=5.0)), 0.0, []
    for n in range(12):
        supervisor.exited(now, "signal 9")
        assert state_of(supervisor) == EngineState.BACKOFF
        deadline = supervisor.next_deadline()
        assert deadline is not None
        pauses.append(deadline - now)
        now = deadline
        assert supervisor.tick(now) == [EngineAction.SPAWN]
        supervisor.spawned(now, 8 + n)
        supervisor.ready(now)
        if n == 9:
            supervisor.worked()
    assert pauses[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert pauses[9:] == pytest.approx([5.0, 0.1, 0.2])


@pytest.mark.parametrize(("how", "waits_s"), [(in_words(-9), 60.0), (in_words(1), 10.0)])
def test_starts_may_be_killed_for_a_while_after_an_engine_was_ready(how: str, waits_s: float) -> None:
    supervisor, now = ready(Policy(budget=2, window_s=60.0, backoff_base_s=5.0)), 10.0
    supervisor.exited(now, how)
    while now < 10.0 + waits_s:
        assert state_of(supervisor) == EngineState.BACKOFF, now
        now += 5.0
        supervisor.tick(now)
        supervisor.spawned(now, 8)
        supervisor.exited(now, how)
    assert state_of(supervisor) == EngineState.UNAVAILABLE


def test_a_call_brings_the_next_try_forward() -> None:
    supervisor = new(Policy(budget=1, probe_s=10.0, look_s=2.0))
    supervisor.start(0.0)
    supervisor.spawned(0.0, 7)
    supervisor.exited(1.0, "status 1")
    assert (supervisor.state, supervisor.unavailable_since) == (EngineState.UNAVAILABLE, 1.0)
    assert supervisor.wake(2.9) == []
    assert supervisor.wake(3.0) == [EngineAction.SPAWN]
    assert not supervisor.hopeless, "calls wait for this start"
    supervisor.spawned(3.0, 8)
    supervisor.exited(4.0, "status 1")
    assert (supervisor.state, supervisor.unavailable_since) == (EngineState.UNAVAILABLE, 1.0)
    supervisor.start(5.0)
    supervisor.spawned(5.0, 9)
    supervisor.ready(5.0)
    assert supervisor.unavailable_since is None


def test_an_engine_that_stayed_up_pays_its_starts_back() -> None:
    supervisor = ready(Policy(budget=2, stable_s=30.0))
    assert supervisor.tick(30.0) == []
    assert supervisor.next_deadline() is None
    supervisor.exited(31.0, "signal 11")
    assert state_of(supervisor) == EngineState.BACKOFF
    due(supervisor)
    supervisor.spawned(32.0, 8)
    supervisor.exited(32.0, "signal 11")
    assert state_of(supervisor) == EngineState.BACKOFF, "one start counts, not two"


def test_old_starts_do_not_count() -> None:
    supervisor = new(Policy(budget=2, window_s=60.0))
    supervisor.start(0.0)
    for now in (0.0, 60.0, 120.0):
        supervisor.spawned(now, 7)
        supervisor.exited(now, "status 1")
        assert state_of(supervisor) == EngineState.BACKOFF
        supervisor.tick(now + 5.0)


@pytest.mark.parametrize(("permanent", "state"), [(True, EngineState.FATAL), (False, EngineState.UNAVAILABLE)])
def test_a_fault_that_the_engine_names_ends_in_its_words(permanent: bool, state: EngineState) -> None:
    supervisor = new()
    supervisor.start(0.0)
    supervisor.spawned(0.0, 7)
    supervisor.failed(0.1, "lease held by pid 9", "end pid 9", permanent=permanent)
    assert state_of(supervisor) == EngineState.STARTING, "it is not reaped yet"
    supervisor.exited(0.2, "status 75")
    assert (supervisor.state, supervisor.reason, supervisor.hint) == (state, "lease held by pid 9", "end pid 9")
    assert (supervisor.next_deadline() is None) == permanent
    assert supervisor.start(5.0) == [EngineAction.SPAWN]


def test_an_attempt_that_makes_no_process_fails_at_once() -> None:
    supervisor = new()
    supervisor.start(0.0)
    supervisor.failed(0.0, "no mempalace", "install it", permanent=True)
    assert state_of(supervisor) == EngineState.FATAL
    assert supervisor.tick(1e9) == []


def test_a_call_looks_whether_a_fatal_fault_has_been_mended() -> None:
    supervisor = new(POLICY)
    supervisor.start(0.0)
    supervisor.failed(0.0, "no mempalace", "install it", permanent=True)
    assert supervisor.wake(POLICY.probe_s - 0.1) == []
    assert supervisor.wake(POLICY.probe_s) == [EngineAction.SPAWN]
    supervisor.failed(POLICY.probe_s, "no mempalace", "install it", permanent=True)
    assert supervisor.wake(POLICY.probe_s + 1) == [], "once in a while, however many calls come"


def test_ending_for_good_starts_no_other() -> None:
    supervisor = ready()
    assert supervisor.end(1.0, "the broker leaves", replace=False) == [EngineAction.TERMINATE]
    supervisor.exited(1.1, "status 0")
    assert state_of(supervisor) == EngineState.DOWN
    assert supervisor.next_deadline() is None


@pytest.mark.parametrize("state", [EngineState.LOCKING, EngineState.BACKOFF, EngineState.UNAVAILABLE])
def test_ending_for_good_while_there_is_none(state: EngineState) -> None:
    supervisor = new(Policy(budget=1 if state == EngineState.UNAVAILABLE else 9))
    supervisor.start(0.0)
    if state != EngineState.LOCKING:
        supervisor.spawned(0.0, 7)
        supervisor.exited(0.0, "status 1")
    assert supervisor.state == state
    assert supervisor.end(1.0, "x") == []
    assert supervisor.state == state
    assert supervisor.end(1.0, "x", replace=False) == []
    assert state_of(supervisor) == EngineState.DOWN
    assert supervisor.tick(1e9) == []


POLICY = Policy(init_s=8.0, term_grace_s=2.0, orphan_grace_s=3.0, budget=3, window_s=30.0, stable_s=10.0, probe_s=5.0)


class Engines(RuleBasedStateMachine):
    """The world around a supervisor: processes, the lock, time. Signals are obeyed or not."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.supervisor = Supervisor(POLICY, rng=lambda: 0.5)
        self.process = 0
        self.pids = 0
        self.orphan = False
        self.termed = self.killed = False
        self.starts: list[float] = []
        self.stable_at = 0.0
        self.carry_out(self.supervisor.start(0.0))

    def carry_out(self, effects: list[EngineAction]) -> None:
        for effect in effects:
            if effect == EngineAction.SPAWN:
                self.spawn()
            elif effect == EngineAction.TERMINATE:
                assert self.process
                assert not self.termed
                self.termed = True
            elif effect == EngineAction.KILL:
                assert self.process
                assert self.termed, "EngineAction.TERMINATE first"
                assert not self.killed
                self.killed = True
            else:
                assert effect == EngineAction.KILL_ORPHAN
                self.orphan = False

    def spawn(self) -> None:
        assert not self.process, "two engines"
        if self.orphan:
            self.carry_out(self.supervisor.lock_busy(self.now, "an orphan"))
            return
        self.pids += 1
        self.process = self.pids
        self.termed = self.killed = False
        self.starts.append(self.now)
        self.supervisor.spawned(self.now, self.process)

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.5, 2.0, 6.0, 11.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        """In steps from deadline to deadline, as a timer would."""
        end = self.now + seconds
        for _ in range(2000):
            deadline = self.supervisor.next_deadline()
            if deadline is None or deadline > end:
                break
            self.now = max(self.now, deadline)
            self.carry_out(self.supervisor.tick(self.now))
        else:
            raise AssertionError("it spins")
        self.now = end
        self.carry_out(self.supervisor.tick(self.now))

    @precondition(lambda self: self.process)
    @rule()
    def says_hello(self) -> None:
        self.supervisor.hello(self.now)

    @precondition(lambda self: self.process)
    @rule()
    def says_ready(self) -> None:
        self.supervisor.ready(self.now)

    @precondition(lambda self: self.supervisor.state == EngineState.READY)
    @rule()
    def answers_a_call(self) -> None:
        self.supervisor.worked()
        self.starts.clear()  # that is work, not a restart loop

    @rule()
    def a_call_comes(self) -> None:
        if self.supervisor._wanted:
            before = len(self.starts)
            self.carry_out(self.supervisor.wake(self.now))
            del self.starts[before:]  # on demand, and bounded by look_s

    @precondition(lambda self: self.process)
    @rule(permanent=st.sampled_from([False, False, True]))
    def says_what_is_wrong(self, permanent: bool) -> None:
        self.supervisor.failed(self.now, "wrong", "hint", permanent=permanent)

    @precondition(lambda self: self.process)
    @rule()
    def ends(self) -> None:
        self.process = 0
        self.supervisor.exited(self.now, "status 1")

    @rule(replace=st.sampled_from([True, True, True, False]))
    def is_to_end(self, replace: bool) -> None:
        self.carry_out(self.supervisor.end(self.now, "asked to", replace=replace))

    @rule()
    def is_wanted(self) -> None:
        if self.supervisor.state in (EngineState.DOWN, EngineState.FATAL):
            self.starts.clear()  # a person asked for it: not a restart loop
            self.carry_out(self.supervisor.start(self.now))

    @rule()
    def an_orphan_appears(self) -> None:
        if not self.process:
            self.orphan = True

    @invariant()
    def it_knows_whether_a_process_is_there(self) -> None:
        assert self.supervisor.alive == bool(self.process)
        assert self.supervisor.pid == self.process

    @invariant()
    def a_kill_is_never_forgotten(self) -> None:
        if self.process and self.termed and not self.killed:
            assert self.supervisor.state == EngineState.STOPPING
            deadline = self.supervisor.next_deadline()
            assert deadline is not None
            assert deadline <= self.now + POLICY.term_grace_s

    @invariant()
    def every_state_but_fatal_has_a_way_out(self) -> None:
        state = self.supervisor.state
        timed = {
            EngineState.LOCKING,
            EngineState.STARTING,
            EngineState.WARMING,
            EngineState.STOPPING,
            EngineState.BACKOFF,
            EngineState.UNAVAILABLE,
        }
        if state in timed:
            assert self.supervisor.next_deadline() is not None, state
        else:
            assert state in {
                EngineState.READY,
                EngineState.KILLING,
                EngineState.DOWN,
                EngineState.FATAL,
            }  # by its exit, or on demand

    @invariant()
    def there_is_no_restart_loop(self) -> None:
        """Within a window: the budget, then at most one start per probe."""
        recent = [when for when in self.starts if when > self.now - POLICY.window_s]
        stable = POLICY.window_s / POLICY.stable_s * POLICY.budget  # each stable run pays its starts back
        assert len(recent) <= POLICY.budget + POLICY.window_s / POLICY.probe_s + stable

    def teardown(self) -> None:
        """From anywhere, with an engine that behaves, service comes back."""
        self.carry_out(self.supervisor.start(self.now))
        for _ in range(400):
            if self.supervisor.state == EngineState.READY and self.process:
                break
            if self.process and (self.termed or self.supervisor._fault is not None):
                self.ends()
            elif self.process:
                self.says_hello()
                self.says_ready()
            elif self.supervisor.state in (EngineState.DOWN, EngineState.FATAL):
                self.carry_out(self.supervisor.start(self.now))
            else:
                self.time_passes(0.5)
        assert self.supervisor.state == EngineState.READY


Engines.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestEngines = Engines.TestCase
