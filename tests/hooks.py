"""mempalace's own hooks, as Claude Code runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.harness import World

HUMAN_MESSAGES = 16  # the stop hook saves at every fifteenth


def transcript(world: World, name: str = "transcript", what: str = "heron") -> Path:
    """What a session said, about `what`."""
    path = world.root / f"{name}.jsonl"
    messages = [
        {"type": role, "message": {"role": role, "content": f"{role} says that {what} {n} waits in the water for fish"}}
        for n in range(HUMAN_MESSAGES)
        for role in ("user", "assistant")
    ]
    path.write_text("".join(json.dumps(message) + "\n" for message in messages), encoding="utf-8")
    return path


def run_hook(world: World, hook: str, path: Path, session: str = "s1") -> dict[str, Any]:
    """Run "stop", "session-end" or "precompact" to its end; what it told."""
    note = {"session_id": session, "transcript_path": str(path), "stop_hook_active": False}
    program = str(Path(world.server[0]).parent / "mempalace")
    done = world.run(
        program, "hook", "run", "--hook", hook, "--harness", "claude-code", stdin=json.dumps(note), timeout=100
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told
