"""`analyze` and `replay`, as an operator uses them."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recorded import Change, Deployment, Read
from benchmarks.traffic_model import TRADING, ModelRead, Shape, trading
from cachebus import Client
from cachebus.cache.foresight.recording import from_file, to_file
from cachebus.monitoring.advice import asking
from cachebus.monitoring.advice.asking import progress
from cachebus.testing.server import PrivateServer
from cachebus.worker.cli import main

ROOT = Path(__file__).parents[2]


RECORDING = ROOT / "benchmarks/planted.rec"
"""Ten minutes of modelled traffic, as `python -m benchmarks.recorded planted` writes them."""


def test_a_recording_is_analysed_again_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Advice, views and the memory curve as tables; the same as JSON, in a file; without Redis."""
    written = tmp_path / "report.json"
    assert main(["analyze", "--from", str(RECORDING), "--json", str(written)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.startswith("recorded 10 min in 3 processes: 9,600 of 9,600 reads\nSAVES S/DAY  CONFIDENCE  ADVICE")
    assert re.search(r"(?m)^quote:\{symbol\} +3600 +\d+", shown.out)
    assert re.search(r"(?m)^ENTRIES +MEMORY HITS % +LOWEST +HIGHEST\n250 ", shown.out)
    report = json.loads(written.read_text())
    assert report["schema"] == 1
    assert [advice["kind"] for advice in report["advice"]] == ["tag", "unread", "ttl"]


def test_a_recording_is_replayed_with_other_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """A longer TTL: more hits, fewer loads, of that view alone; a view the recording lacks is named."""
    assert main(["replay", str(RECORDING), "--ttl", "quote:{symbol}=80s", "--memory", "10", "--json"]) == 0
    rows = {row["view"]: row for row in json.loads(capsys.readouterr().out)}
    quote, profile, whole = rows["quote:{symbol}"], rows["profile:{user_id}"], rows["(all)"]
    assert quote["hits_then"] > quote["hits"] + 10
    assert quote["loads_then"] < quote["loads"] / 2
    assert quote["wait_ms_then"] < quote["wait_ms"]
    assert profile["hits_then"] == profile["hits"]
    assert profile["memory_then"] < profile["memory"]
    assert whole["loading_s_then"] < whole["loading_s"]
    assert main(["replay", str(RECORDING)]) == 0
    assert re.search(r"(?m)^VIEW +READS .*\n(.*\n)*\(all\) +9600", capsys.readouterr().out)
    assert main(["replay", str(RECORDING), "--ttl", "quote=80s"]) == 2
    assert "has no view 'quote'; it has digest:{user_id}, profile" in capsys.readouterr().err
    assert main(["replay", str(RECORDING), "--ttl", "80s"]) == 2
    assert "names no view; write VIEW=TTL" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut short, empty, something else: exit code 2 and one line, from both commands."""
    for content, said in ((RECORDING.read_bytes()[:-1], "cut short"), (b"", "is empty"), (b"{}", "not a recording")):
        bad = tmp_path / "bad.rec"
        bad.write_bytes(content)
        for command in (["analyze", "--from", str(bad)], ["replay", str(bad)]):
            assert main(command) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert said in line


def test_a_recording_is_made_and_kept(
    server: PrivateServer, namespace: str, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nobody reads the report says so; the file has no secret in it, and can be read."""
    monkeypatch.setattr(asking, "SETTLE_S", 0.05)
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("CACHE_NAMESPACE", namespace)
    kept = tmp_path / "kept.rec"
    assert main(["analyze", "--for", "1s", "--keep", str(kept)]) == 0
    assert capsys.readouterr().out == (
        "recorded 1 s in 0 processes: 0 of 0 reads\n"
        "0 sampled reads say too little; 2,000 are needed: record longer, or when more is read\n"
    )
    assert from_file(kept.read_bytes()).wanted.secret == ""


async def test_a_recording_ends_with_who_asked_for_it(
    client: Client, server: PrivateServer, namespace: str, until: Any
) -> None:
    """`kill -9` of the command: nobody renews the key, and it ends within 20 s; meanwhile others are refused."""
    environment = {"REDIS_URL": server.url, "CACHE_NAMESPACE": namespace, "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "cachebus.worker", "analyze", "--for", "1h")
    asked = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.DEVNULL)
    await until(lambda: progress(client), "it is asked for")
    second = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    _, said = await second.communicate()
    assert second.returncode == 1
    assert re.search(rb"is recording for another 3[56]\d\d s; wait for that, or stop it there", said)
    asked.kill()
    await asked.wait()
    assert 0 < await client.store.call("PTTL", client.names.bus("recording")) <= 20_000


def test_a_recording_is_replayed_with_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three days of habits: what is waited and what the database works, without and with it; identities are hashes."""
    days = 3
    events = (
        Read(
            each.at,
            0,
            each.view,
            TRADING[each.view].key(each.args),
            str(each.user),
            TRADING[each.view].tags_of(each.args),
        )
        if isinstance(each, ModelRead)
        else Change(each.at, each.tags)
        for each in trading(Shape(users=80, days=days))
    )
    deployment = Deployment(TRADING, processes=1, rate=1.0, entries=1000, seconds=days * 86_400)
    path = tmp_path / "habits.rec"
    path.write_bytes(to_file(deployment.run(events)))
    assert main(["replay", str(path), "--predict", "--json"]) == 0
    rows = {row["view"]: row for row in json.loads(capsys.readouterr().out)}
    whole = rows["(all)"]
    assert whole["used"] > whole["wasted"] > 0
    assert whole["wait_ms_then"] < 0.95 * whole["wait_ms"]
    assert whole["database_s"] < whole["database_s_then"] < 1.25 * whole["database_s"]
    assert main(["replay", str(path), "--predict"]) == 0
    assert re.search(r"(?m)^VIEW +AHEAD .*\n(.*\n)*\(all\) +\d+", capsys.readouterr().out)
    assert main(["replay", str(path), "--predict", "--memory", "10"]) == 2
    assert "--memory: prediction is replayed with Redis alone" in capsys.readouterr().err
