"""Breadth-first search over all states of a model, with the shortest history to a violation.

States are kept by their 64-bit hashes: for ten million of them the chance that any two are taken for one is under 1e-5.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

from tests.model.world import State, Violation, World, check, is_good


class Explored(NamedTuple):
    """What a search found. complete: every reachable state within the model's bounds was visited.

    history: what led to the violation, empty if there is none. dead_ends: states from which nobody can ever own again.
    """

    states: int
    transitions: int
    depth: int
    complete: bool
    violation: str = ""
    history: tuple[str, ...] = ()
    dead_ends: int = 0
    dead_end: tuple[str, ...] = ()

    def __str__(self) -> str:
        whole = "all" if self.complete else "the first"
        return f"{whole} {self.states} states, {self.transitions} transitions, depth {self.depth}"


class Search:
    """One breadth-first search, at most `limit` states."""

    def __init__(self, world: World, limit: int) -> None:
        self.world = world
        self.limit = limit
        self.index: dict[int, int] = {}
        self.parents = array("i")
        self.via = array("i")
        self.words: dict[str, int] = {}
        self.good = bytearray()
        self.sources, self.targets = array("i"), array("i")
        self.transitions = 0

    def run(self, *, liveness: bool = False) -> Explored:
        frontier = [self.world.start()]
        self._enter(hash(frontier[0]), frontier[0], -1, "")
        depth = 0
        while frontier and len(self.index) < self.limit:
            following: list[State] = []
            for state in frontier:
                if broken := self._expand(state, following, liveness):
                    return self._told(depth, broken)
            frontier = following
            depth += bool(frontier)
        dead = self._dead_ends() if liveness and not frontier else []
        shown = self._history(dead[0]) if dead else ()
        return Explored(len(self.index), self.transitions, depth, not frontier, "", (), len(dead), shown)

    def _expand(self, state: State, following: list[State], liveness: bool) -> tuple[str, ...]:
        """Visit a state's successors; on a violation what it is and the history."""
        here = self.index[hash(state)]
        step = "?"
        try:
            for step, fault, after in self.world.successors(state):
                self.transitions += 1
                key = hash(after)
                there = self.index.get(key)
                if there is None:
                    there = self._enter(key, after, here, step)
                    check(after)
                    following.append(after)
                if liveness and not fault:
                    self.sources.append(here)
                    self.targets.append(there)
        except Violation as exc:
            return (str(exc), *self._history(here), step)
        return ()

    def _enter(self, key: int, state: State, parent: int, via: str) -> int:
        number = len(self.index)
        self.index[key] = number
        self.parents.append(parent)
        self.via.append(self.words.setdefault(via, len(self.words)))
        self.good.append(is_good(state))
        return number

    def _history(self, number: int) -> tuple[str, ...]:
        words = list(self.words)
        steps: list[str] = []
        while number > 0:
            steps.append(words[self.via[number]])
            number = self.parents[number]
        return tuple(reversed(steps))

    def _told(self, depth: int, broken: tuple[str, ...]) -> Explored:
        return Explored(len(self.index), self.transitions, depth, False, broken[0], broken[1:])

    def _dead_ends(self) -> list[int]:
        """States from which no good one can be reached without a further fault."""
        first = array("i", bytes(4 * (len(self.index) + 2)))  # where the sources of a target begin, by counting
        for target in self.targets:
            first[target + 2] += 1
        for number in range(2, len(first)):
            first[number] += first[number - 1]
        sources = array("i", bytes(4 * len(self.sources)))
        for source, target in zip(self.sources, self.targets, strict=True):
            sources[first[target + 1]] = source
            first[target + 1] += 1
        reached = bytearray(self.good)
        stack = [number for number, good in enumerate(reached) if good]
        while stack:
            target = stack.pop()
            for source in sources[first[target] : first[target + 1]]:
                if not reached[source]:
                    reached[source] = 1
                    stack.append(source)
        return [number for number, yes in enumerate(reached) if not yes]


def explore(world: World, *, limit: int, liveness: bool = False) -> Explored:
    """Search until everything is visited, a violation is found, or `limit` states are exceeded."""
    return Search(world, limit).run(liveness=liveness)
