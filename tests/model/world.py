"""The lease protocol's world, small enough to be explored to the end: nodes, a shared folder seen late, faults.

The machines are the real ones of lease/machine. One step is one IO operation of one node, so anything may
happen between any two operations of a node; a node that takes no step is paused, for as long as the explorer likes.
`tick` lets time pass for all. A reader on a foreign node gets, each time and for each name and record anew, any value
that was current within the last D ticks (it may even see an older one after a newer one). The host sees its own disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from mempalace_broker.lease.machine.acquire import Acquired, LeaseAcquirer
from mempalace_broker.lease.machine.hold import Holding, LeaseHolder, Operation
from mempalace_broker.lease.machine.lease import (
    LeaseAction,
    LeasePolicy,
    LeaseState,
    Listing,
    NodeKind,
    ObservedLease,
    Verb,
)

Record = tuple[LeaseState, int, bool]  # state, sequence, busy
EMPTY_RECORD = (LeaseState.EMPTY, 0, False)
_REMOVED = (LeaseState.MISSING, 0, False)
FORGED: tuple[Record, ...] = (
    (LeaseState.ACTIVE, 9, True),
    (LeaseState.ACTIVE, 9, False),
    (LeaseState.ACQUIRING, 9, False),
    (LeaseState.UNREADABLE, 0, False),
)


class Violation(Exception):
    """An invariant does not hold."""


class Entry(NamedTuple):
    """A name in the folder and its record, with the values that were current within the last D ticks, and their ages.

    node, boot: who created it. The name is there or not; a removed one stays known so that it can be seen late.
    """

    name: bool
    record: Record
    node: int
    boot: int
    names: tuple[tuple[bool, int], ...] = ()
    records: tuple[tuple[Record, int], ...] = ()


class Node(NamedTuple):
    """One kernel. machine: its broker, None if there is none. engine: whether a call is in its engine now."""

    machine: LeaseAcquirer | LeaseHolder | None = None
    engine: bool = False
    permitted: bool = False
    leaving: bool = False
    boot: int = 0
    starts: int = 0
    calls: int = 0
    beats: int = 0
    stale: tuple[int, ...] = ()
    inherited: tuple[int, ...] = ()  # those of them whose engine may still run
    listed: int = 0  # a host's time since the last listing, as a negative number
    in_doubt: bool = False
    capped: bool = False


class State(NamedTuple):
    """Everything. last: the highest epoch that ever sent something into its engine."""

    nodes: tuple[Node, ...]
    folder: tuple[Entry, ...] = ()
    gone: frozenset[tuple[int, int]] = frozenset()
    requested: frozenset[int] = frozenset()
    faults: int = 0
    forgeries: int = 0
    last: int = 0


class Bounds(NamedTuple):
    """How far a run goes. Per node: starts, calls per start, beats per start. faults: crashes in all.

    forgeries: what somebody who can write the folder puts into it, in all.
    """

    kinds: tuple[NodeKind, ...]
    starts: tuple[int, ...] = (1, 1, 1)
    calls: int = 1
    beats: int = 1
    epochs: int = 3
    faults: int = 1
    forgeries: int = 0
    late: int = 1  # D
    policy: LeasePolicy = LeasePolicy(silence_s=1, settle_s=3, poll_s=3, tries=1)
    stale_host: bool = False  # as if the host, too, saw everything late
    tidies: bool = True
    answers: bool = False  # whether a host answers leases above its own
    hasty: bool = False  # as if old names were removed before all see the new one


class World:
    """Successors of a state. Yields (what happened, whether it is a fault, next state)."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds

    def start(self) -> State:
        nodes = tuple(Node(starts=self.bounds.starts[i]) for i in range(len(self.bounds.kinds)))
        return State(nodes, faults=self.bounds.faults, forgeries=self.bounds.forgeries)

    def successors(self, state: State) -> Iterator[tuple[str, bool, State]]:
        for i in range(len(state.nodes)):
            yield from self._of_node(state, i)
        if state.forgeries:
            yield from self._forge(state)
        later = self._tick(state)
        if later != state:
            yield "tick", False, later

    # -- somebody who can write the folder

    def _forge(self, state: State) -> Iterator[tuple[str, bool, State]]:
        """A lease above all others that says anything. False words about a holder are not in the model."""
        poorer = state._replace(forgeries=state.forgeries - 1)
        nobody, g = len(self.bounds.kinds), len(state.folder) + 1
        if g <= self.bounds.epochs:
            for record in FORGED:
                entry = Entry(True, record, nobody, 0, ((False, 0),), ((EMPTY_RECORD, 0),))
                yield f"forger: epoch {g} is {record}", True, poorer._replace(folder=(*state.folder, entry))

    # -- one node

    def _of_node(self, state: State, i: int) -> Iterator[tuple[str, bool, State]]:
        node = state.nodes[i]
        machine = node.machine
        if node.engine:
            yield f"{i}: the call ends", False, _with(state, i, node._replace(engine=False))
        if machine is None:
            if node.starts and not node.capped:
                yield f"{i}: starts", False, self._begin(state, i)
            if state.faults and not node.engine and not node.capped:
                yield from self._person(state, i)
            return
        if isinstance(machine, LeaseAcquirer):
            yield from self._acquire(state, i, machine)
        else:
            yield from self._hold(state, i, machine)
        if state.faults:
            yield from self._crash(state, i)

    def _begin(self, state: State, i: int) -> State:
        """A broker starts on that node; it holds the node's broker.lock."""
        kind = self.bounds.kinds[i]
        machine = LeaseAcquirer(kind, self.bounds.policy)
        node = state.nodes[i]
        fresh = Node(machine, node.engine, boot=node.boot, starts=node.starts - 1)
        return _with(state, i, fresh._replace(calls=self.bounds.calls, beats=self.bounds.beats))

    def _crash(self, state: State, i: int) -> Iterator[tuple[str, bool, State]]:
        """The broker is killed, and its engine goes on; or its whole kernel is gone."""
        node = state.nodes[i]
        poorer = state._replace(faults=state.faults - 1)
        dead = Node(None, node.engine, boot=node.boot, starts=node.starts)
        yield f"{i}: broker killed", True, _with(poorer, i, dead)
        reboot = dead._replace(engine=False, boot=node.boot + 1)
        yield f"{i}: kernel dies", True, _with(poorer, i, reboot)

    def _person(self, state: State, i: int) -> Iterator[tuple[str, bool, State]]:
        """A person says, and it is true, that the last lease of this dead node is gone."""
        for g, entry in enumerate(state.folder, 1):
            mark = (g, entry.record[1])
            if (
                entry.node == i
                and entry.record[0] in (LeaseState.ACQUIRING, LeaseState.ACTIVE)
                and entry.name
                and mark not in state.gone
            ):
                told = state._replace(gone=state.gone | {mark}, faults=state.faults - 1)
                yield f"person: epoch {g} is gone", True, told

    # -- an acquirer

    def _acquire(self, state: State, i: int, machine: LeaseAcquirer) -> Iterator[tuple[str, bool, State]]:
        node = state.nodes[i]
        if machine.step is Verb.SLEEP:
            if machine.requested and machine.deadline:
                yield f"{i}: patience ends", False, _with(state, i, node._replace(machine=machine._replace(deadline=0)))
            if machine.wake > 0:
                return
            machine = machine.advance(None, 0, 0)  # waking touches nothing: the listing is the next step
        action = machine.action
        if action.verb is Verb.CREATE and action.epoch > self.bounds.epochs:
            yield (
                f"{i}: beyond the bound",
                False,
                _with(state, i, Node(boot=node.boot, engine=node.engine, capped=True)),
            )
        else:
            if action.verb is Verb.LIST:
                node = node._replace(listed=0)
            for what, result, after in self._perform(state, i, action):
                moved = machine.advance(result, 0, 0)
                if moved.step is Verb.DONE:
                    yield f"{i}: {what}: {moved.outcome}", False, self._end(after, i, moved)
                else:
                    yield f"{i}: {what}", False, _with(after, i, node._replace(machine=moved))

    def _end(self, state: State, i: int, machine: LeaseAcquirer) -> State:
        node = state.nodes[i]
        state = state._replace(requested=state.requested - {machine.requested})
        if machine.outcome is not Acquired.OURS:
            in_doubt = machine.outcome is Acquired.IN_DOUBT
            return _with(state, i, Node(None, node.engine, boot=node.boot, starts=node.starts, in_doubt=in_doubt))
        owner = LeaseHolder(
            machine.epoch,
            machine.kind,
            machine.sequence,
            policy=self.bounds.policy,
            written_at=node.listed,
            looked_at=node.listed,
        )
        tidies = self.bounds.tidies
        stale = tuple(g for g in machine.stale if tidies)
        inherited = tuple(epoch for epoch in machine.stale if self._left_open(state, i, epoch))
        return _with(state, i, node._replace(machine=owner, stale=stale, inherited=inherited))

    def _left_open(self, state: State, i: int, epoch: int) -> bool:
        """Whether a broker of node i died with that epoch, so that its engine may still run."""
        entry = state.folder[epoch - 1]
        proven = entry.boot == state.nodes[i].boot or self.bounds.kinds[i] is NodeKind.HOST
        return entry.node == i and proven and not entry.record[0].is_final

    # -- a holder

    def _hold(self, state: State, i: int, machine: LeaseHolder) -> Iterator[tuple[str, bool, State]]:
        node = state.nodes[i]
        if machine.step is Verb.KILL:
            reaped = node._replace(engine=False, machine=machine.advance(True, 0, 0))
            yield f"{i}: kills its engine", False, _with(state, i, reaped)
        elif machine.step is not Verb.DONE:
            yield from self._step(state, i, node, machine)
        elif node.permitted:
            yield f"{i}: sends a call into its engine", False, self._dispatch(state, i, machine)
        else:
            yield from self._choose(state, i, machine)

    def _step(self, state: State, i: int, node: Node, machine: LeaseHolder) -> Iterator[tuple[str, bool, State]]:
        for what, result, after in self._perform(state, i, machine.action):
            moved = machine.advance(result, 0, 0)
            if moved.operation is Operation.FENCE and _is_steady_host(machine):
                raise Violation(f"node {i} gives the palace up, and nobody can have taken it: {moved.reason}")
            yield f"{i}: {what}", False, _with(after, i, _settled(node, moved))

    def _choose(self, state: State, i: int, machine: LeaseHolder) -> Iterator[tuple[str, bool, State]]:
        """An owner at rest may do anything that it may do at any moment."""
        node = state.nodes[i]
        if node.calls and not node.engine and not node.leaving:
            yield from self._step(state, i, node, machine.mark_busy())
            if machine.is_certain(0):
                yield f"{i}: needs no look", False, _with(state, i, node._replace(permitted=True))
        if node.beats:
            yield from self._step(state, i, node._replace(beats=node.beats - 1), machine.renew())
        if not node.engine:
            if machine.busy:
                yield from self._step(state, i, node, machine.mark_idle())
            yield from self._step(state, i, node, machine.release())
        if self.bounds.answers and machine.kind is NodeKind.HOST:
            yield from self._answer(state, i, machine)
        seen_by_all = not state.folder[machine.epoch - 1].names or self.bounds.hasty
        for g in node.stale if seen_by_all else ():
            if g not in node.inherited or not node.engine:
                yield f"{i}: removes {g}", False, self._remove(state, i, g)

    def _answer(self, state: State, i: int, machine: LeaseHolder) -> Iterator[tuple[str, bool, State]]:
        """The host asks the maker of the highest lease above its own to hand over, perhaps long after it saw that."""
        top = max((g for g, entry in enumerate(state.folder, 1) if entry.name), default=0)
        if top > machine.epoch and top not in state.requested:
            yield f"{i}: answers {top}", False, state._replace(requested=state.requested | {top})

    def _dispatch(self, state: State, i: int, machine: LeaseHolder) -> State:
        node = state.nodes[i]
        if machine.epoch < state.last:
            raise Violation(f"node {i} writes as epoch {machine.epoch}, after epoch {state.last} wrote")
        sent = node._replace(engine=True, permitted=False, calls=node.calls - 1)
        return _with(state._replace(last=machine.epoch), i, sent)

    # -- the folder

    def _perform(self, state: State, i: int, action: LeaseAction) -> Iterator[tuple[str, Any, State]]:
        """(what, its result, the state after it) for each way in which an operation can turn out."""
        if action.verb is Verb.LIST:
            for names in self._listings(state, i):
                yield f"lists {names}", Listing(names, state.gone, state.requested), state
        elif action.verb is Verb.READ:
            for seen in self._readings(state, i, action.epoch):
                yield f"reads {seen}", seen, state
        elif action.verb is Verb.CREATE:
            yield f"creates {action.epoch}", *self._create(state, i, action.epoch)
        elif action.verb is Verb.WRITE:
            record = (action.state, action.sequence, action.busy)
            yield f"writes {action.epoch} {record}", True, self._put(state, action.epoch, record)
        elif action.verb is Verb.REQUEST_HANDOVER:
            yield f"requested {action.epoch}", None, state._replace(requested=state.requested | {action.epoch})

    def _late(self, i: int) -> bool:
        return self.bounds.stale_host or self.bounds.kinds[i] is not NodeKind.HOST

    def _watched(self, i: int) -> bool:
        """Whether anybody sees late what node i does."""
        return any(self._late(j) for j in range(len(self.bounds.kinds)) if j != i)

    def _listings(self, state: State, i: int) -> Iterator[tuple[int, ...]]:
        late = self._late(i)
        choices: list[tuple[bool, ...]] = []
        for entry in state.folder:
            values = {entry.name}
            if late and entry.node != i:
                values |= {value for value, _ in entry.names}
            choices.append(tuple(values))
        for picked in product(*choices):
            yield tuple(g for g, there in enumerate(picked, 1) if there)

    def _readings(self, state: State, i: int, g: int) -> Iterator[ObservedLease]:
        entry = state.folder[g - 1]
        values = {entry.record if entry.name else _REMOVED}
        if self._late(i) and entry.node != i:
            values |= {value for value, _ in entry.records}
        kind = (*self.bounds.kinds, NodeKind.FOREIGN)[entry.node]
        same = entry.node == i and entry.boot == state.nodes[i].boot
        dead = same or (kind is NodeKind.HOST and self.bounds.kinds[i] is NodeKind.HOST)
        for kept, sequence, busy in values:
            yield ObservedLease(g, kept, sequence, busy, kind, dead and kept is not LeaseState.MISSING)

    def _create(self, state: State, i: int, g: int) -> tuple[bool, State]:
        folder = list(state.folder)
        while len(folder) < g:
            folder.append(Entry(False, _REMOVED, i, state.nodes[i].boot))
        old = folder[g - 1]
        if old.name:
            return False, state
        names = ((False, 0), *old.names)
        if not self._watched(i):
            names = ()
        folder[g - 1] = Entry(True, EMPTY_RECORD, i, state.nodes[i].boot, _recent(names), old.records)
        return True, state._replace(folder=tuple(folder))

    def _put(self, state: State, g: int, record: Record) -> State:
        entry = state.folder[g - 1]
        if not entry.name:
            return state  # removed under us: nobody sees it any more
        records = tuple(sorted({(entry.record, 0), *entry.records})) if self._watched(entry.node) else ()
        return _entry(state, g, entry._replace(record=record, records=records))

    def _remove(self, state: State, i: int, g: int) -> State:
        node = state.nodes[i]
        entry = state.folder[g - 1]
        if entry.name:
            names, records = ((True, 0), *entry.names), ((entry.record, 0), *entry.records)
            state = _entry(state, g, entry._replace(name=False, record=_REMOVED, names=_recent(names), records=records))
        return _with(state, i, node._replace(stale=tuple(x for x in node.stale if x != g)))

    # -- time

    def _tick(self, state: State) -> State:
        folder = tuple(
            entry
            if not entry.names and not entry.records
            else entry._replace(
                names=tuple((value, age + 1) for value, age in entry.names if age < self.bounds.late),
                records=tuple((value, age + 1) for value, age in entry.records if age < self.bounds.late),
            )
            for entry in state.folder
        )
        return state._replace(nodes=tuple(_older(node) for node in state.nodes), folder=folder)


def _settled(node: Node, machine: LeaseHolder) -> Node:
    """The node after a step of its owner: what it was allowed to do, or asked to."""
    if machine.step is not Verb.DONE:
        return node._replace(machine=machine._replace(reason=""))
    if machine.over:
        return Node(None, node.engine, boot=node.boot, starts=node.starts)
    leaving = node.leaving or machine.outcome is Holding.HANDOVER
    return node._replace(
        machine=machine._replace(outcome=None, operation=None),
        permitted=machine.operation is Operation.MARK_BUSY,
        leaving=leaving,
    )


def _is_steady_host(machine: LeaseHolder) -> bool:
    return machine.kind is NodeKind.HOST and not machine.paused and -machine.written_at < machine.policy.steady_s


def _older(node: Node) -> Node:
    machine = node.machine
    if machine is None or (isinstance(machine, LeaseHolder) and machine.kind is not NodeKind.HOST):
        return node
    oldest = -machine.policy.steady_s
    if isinstance(machine, LeaseHolder):
        return node._replace(
            machine=machine._replace(
                written_at=max(oldest, machine.written_at - 1), looked_at=max(oldest, machine.looked_at - 1)
            )
        )
    if machine.kind is NodeKind.HOST:
        node = node._replace(listed=max(int(oldest), node.listed - 1))
    older = machine._replace(
        wake=max(0, machine.wake - 1),
        settle_until=max(0, machine.settle_until - 1),
        heartbeats=tuple(w._replace(until=max(0, w.until - 1)) for w in machine.heartbeats),
    )
    return node if older == machine else node._replace(machine=older)


def _recent(values: tuple[tuple[bool, int], ...]) -> tuple[tuple[bool, int], ...]:
    """Each value once, with its lowest age."""
    best: dict[bool, int] = {}
    for value, age in values:
        best[value] = min(age, best.get(value, age))
    return tuple(sorted(best.items()))


def _with(state: State, i: int, node: Node) -> State:
    nodes = list(state.nodes)
    nodes[i] = node
    return state._replace(nodes=tuple(nodes))


def _entry(state: State, g: int, entry: Entry) -> State:
    folder = list(state.folder)
    folder[g - 1] = entry
    return state._replace(folder=tuple(folder))


def check(state: State) -> None:
    """The invariants of a state.

    Raises:
        Violation: it breaks one.
    """
    writing = [i for i, node in enumerate(state.nodes) if node.engine]
    if len(writing) > 1:
        raise Violation(f"nodes {writing} have a call in their engines at once")
    for i in writing:
        machine = state.nodes[i].machine
        if isinstance(machine, LeaseHolder):
            entry = state.folder[machine.epoch - 1]
            if entry.name and entry.record[0] is LeaseState.RELEASED:
                raise Violation(f"node {i} has released, and a call is in its engine")


def is_good(state: State) -> bool:
    """Somebody owns the palace, or was told by whom it may still be held; or the run's bound is reached."""
    for node in state.nodes:
        machine = node.machine
        if isinstance(machine, LeaseHolder) and not machine.over and machine.operation is not Operation.FENCE:
            return True
        if node.in_doubt or node.capped:
            return True
    return not any(node.starts or node.machine is not None for node in state.nodes)
