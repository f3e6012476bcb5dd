"""What calls cost on palaces of 1,000 to 100,000 drawers, and how long the first search takes; draws docs/scale.svg.

Processor time of everything that serves the palace, per call: it hardly depends on what else the machine does.

python benchmarks/scale.py                     both engines, all sizes: takes half an hour
python benchmarks/scale.py --quick             1,000 and 10,000 drawers
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver, texts
from benchmarks.common import REPO, Engine, fmt, median
from benchmarks.driver import Session
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, label, main, rivals, say
from benchmarks.world import BARE, BROKER, LOAD_S, World
from tests import proctools

SIZES = (1_000, 10_000, 100_000)
CALLS = 9
GROWTH = 1.2  # of a write at the largest size over one at the smallest
OVER_BARE = 0.2
WRITES = ("add_drawer", "update_drawer", "diary_write", "delete_drawer")
OVERVIEWS = ("status", "get_taxonomy", "graph_stats", "list_drawers")
TOOLS = ("search", *WRITES, *OVERVIEWS)
DRAWING = REPO / "docs" / "scale.svg"

Costs = dict[str, dict[int, dict[str, float]]]  # who -> drawers -> tool -> ms


def _call(tool: str, rng: random.Random, drawer: str) -> bytes:
    """A call of a tool, with texts of its own; a write changes `drawer`."""
    text = texts.words(rng, 30)
    known: dict[str, dict[str, object]] = {
        "search": {"query": texts.words(rng, 6)},
        "add_drawer": {"wing": "w1", "room": "r1", "content": f"new {text}"},
        "update_drawer": {"drawer_id": drawer, "content": f"changed {text}"},
        "diary_write": {"agent_name": "scale", "entry": text},
        "delete_drawer": {"drawer_id": drawer},
        "list_drawers": {"wing": "w1", "limit": 20},
    }
    return driver.call(1, tool, known.get(tool, {}))


def _run(world: World, session: Session, rng: random.Random) -> dict[str, list[float]]:
    """Milliseconds of processor time of each call of each tool; before each, a drawer is added."""
    costs: dict[str, list[float]] = {}
    drawer = ""
    for tool in TOOLS * CALLS:
        if tool != "add_drawer":
            drawer = _drawer_of(session.answer(_call("add_drawer", rng, ""), LOAD_S))
        before = world.cpu_s()
        session.answer(_call(tool, rng, drawer), LOAD_S)
        costs.setdefault(tool, []).append((world.cpu_s() - before) * 1e3)
    return costs


def _drawer_of(answer: bytes) -> str:
    return answer.decode().split('\\"drawer_id\\": \\"')[1].split('\\"')[0]


def _memory_mb(world: World) -> float:
    return max(proctools.memory_kb(pid)["rss"] for pid in world.pids()) / 1024


def _measured(kind: str, which: Engine, size: int) -> tuple[dict[str, float], float, float]:
    with World(which, kind, palace=prepared(which, size)) as world:
        session, first = world.first_search()
        rng = random.Random(size)
        costs = {tool: median(values) for tool, values in _run(world, session, rng).items()}
        return costs, first, _memory_mb(world)


def measure(options: Options) -> Report:
    """All sizes, the rivals one after the other at each."""
    report = Report("Large palaces")
    sizes = SIZES[:2] if options.quick else SIZES
    found: Costs = {}
    started: dict[str, list[str]] = {}
    memory: dict[str, list[str]] = {}
    for size in sizes:
        for kind, which in rivals(options.engines, (BARE, BROKER)):
            name = label(kind, which)
            say(f"scale: {name}, {size} drawers ...")
            costs, first, mb = _measured(kind, which, size)
            found.setdefault(name, {})[size] = costs
            started.setdefault(name, [name]).append(fmt(first))
            memory.setdefault(name, [name]).append(fmt(mb))
    head = ["", *(f"{size:,}" for size in sizes)]
    for tool in TOOLS:
        rows = [[name, *(fmt(by_size[size][tool]) for size in sizes)] for name, by_size in found.items()]
        report.add(f"`{tool}`, processor time of a call in ms, by the number of drawers:", head, rows)
    report.add("Nobody running: from the spawn to the answer of the first search, s:", head, list(started.values()))
    report.add("Memory of the process that has the palace open, RSS in MB:", head, list(memory.values()))
    _check(options, report, found, sizes)
    if not options.quick:
        DRAWING.write_text(draw(found), encoding="utf-8")
    return report


def _check(options: Options, report: Report, found: Costs, sizes: tuple[int, ...]) -> None:
    for which in options.engines:
        ours, bare = found[label(BROKER, which)], found[label(BARE, which)]
        for tool in TOOLS:
            growth = ours[sizes[-1]][tool] / ours[sizes[0]][tool]
            report.check(f"{tool}, {sizes[-1]:,} over {sizes[0]:,} drawers ({which.version})", growth, GROWTH, " x")
        for size in sizes:
            over = ours[size]["add_drawer"] / bare[size]["add_drawer"]
            report.check(f"add_drawer over bare {which.version}, {size:,} drawers", over, OVER_BARE, " x")


# -- the drawing -----------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _TOP = 360, 240, 56, 40
_SCALE_MS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
_INK = ("#b0413e", "#1f6f8b", "#d98f4e", "#548c2f")


def draw(found: Costs) -> str:
    """An SVG: one panel for each of some tools, milliseconds over drawers, both on a logarithmic scale."""
    panels = ("search", "add_drawer", "diary_write", "status")
    height = _TOP + 20 * len(found) + 30
    body = [_panel(tool, found, n % 2, n // 2) for n, tool in enumerate(panels)]
    for n, name in enumerate(found):
        y = 2 * _HEIGHT + 24 + 18 * n
        body.append(f'<text x="{_LEFT}" y="{y}" fill="{_INK[n % len(_INK)]}">{name}</text>')
    size = f'width="{2 * _WIDTH + 30}" height="{2 * _HEIGHT + height - _TOP}"'
    style = "text{font:12px sans-serif}line{stroke:#ddd}polyline{fill:none;stroke-width:2}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{"".join(body)}</svg>\n'


def _panel(tool: str, found: Costs, column: int, row: int) -> str:
    left, top = column * _WIDTH + _LEFT, row * _HEIGHT + _TOP
    wide, high = _WIDTH - _LEFT - 20, _HEIGHT - _TOP - 40

    def x(size: int) -> float:
        return left + wide * _share(size, SIZES[0], SIZES[-1])

    def y(ms: float) -> float:
        return top + high * (1 - _share(max(ms, _SCALE_MS[0]), _SCALE_MS[0], _SCALE_MS[-1]))

    parts = [f'<text x="{left}" y="{top - 14}">{tool}, ms of processor time</text>']
    for ms in _SCALE_MS:
        parts.append(f'<line x1="{left}" y1="{y(ms):.1f}" x2="{left + wide}" y2="{y(ms):.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(ms) + 4:.1f}" text-anchor="end">{ms:g}</text>')
    low = top + high + 18
    parts += [f'<text x="{x(size):.1f}" y="{low}" text-anchor="middle">{size:,}</text>' for size in SIZES]
    for n, by_size in enumerate(found.values()):
        points = " ".join(f"{x(size):.1f},{y(costs[tool]):.1f}" for size, costs in by_size.items())
        parts.append(f'<polyline points="{points}" stroke="{_INK[n % len(_INK)]}"/>')
    return "".join(parts)


def _share(value: float, least: float, most: float) -> float:
    return (math.log(value) - math.log(least)) / (math.log(most) - math.log(least))


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
