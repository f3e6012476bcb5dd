"""All benchmarks, side by side in one run; `--write docs/figures.md` keeps what was printed.

python benchmarks/run.py --quick                      some minutes, for orientation
python benchmarks/run.py --write docs/figures.md      the real thing; the machine should have nothing else to do
python benchmarks/run.py --against VENV/bin           beside another version of ours, which is installed there
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import latency, load, memory, park, paths, search, start, web
from benchmarks.suite import main

MEASURES = (
    start.measure,
    memory.measure,
    latency.measure,
    paths.measure,
    search.measure,
    park.measure,
    load.measure,
    web.measure,
)

if __name__ == "__main__":
    sys.exit(main(MEASURES, __doc__))
