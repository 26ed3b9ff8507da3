"""Numbers that scripts return are integers, also where Lua tells 2 from 2.0: Dragonfly would reply with text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_script_returns_a_float() -> None:
    """Each script that returns numbers is run in Lua 5.4; a float that is returned on purpose is seen."""
    command = [sys.executable, "-m", "tests.support.lua_numbers"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *calls, canary = [json.loads(line) for line in done.stdout.splitlines()]
    assert canary == ["(a float)", "2", [2.0]]
    assert [(verb, reply) for verb, reply, floats in calls if floats] == []
    refused = [reply for verb, reply, _ in calls if "rror" in reply]
    assert refused == []
    assert len(calls) > 25
