"""What `client.js` sends along, run by Node with a socket and a `fetch` of our own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.lacking import program

SCRIPT = Path(__file__).parents[2] / "cachebus/gateway/static/client.js"
PROGRAM = """
import assert from "node:assert";
import { connect } from "./client.mjs";

let socket, sent, now = 1000;
globalThis.WebSocket = class { constructor() { socket = this; } send() {} close() {} };
globalThis.fetch = async (_, init) => { sent = init.headers; return { headers: new Headers() }; };
Date.now = () => now;
const live = connect({ topics: ["user:1"], url: "http://localhost/" });
await new Promise((done) => setTimeout(done));
const hear = (message) => socket.onmessage({ data: JSON.stringify({ id: null, fresh_after: "", ...message }) });
await live.fetch("/orders");
assert.equal(sent.get("traceparent"), null, "before any message");
hear({ type: "order.placed", topic: "user:1", traceparent: "00-a-b-01" });
await live.fetch("/orders");
assert.equal(sent.get("traceparent"), "00-a-b-01", "because of a message");
hear({ type: "gateway.heartbeat", topic: null });
now += 3000;
await live.fetch("/orders");
assert.equal(sent.get("traceparent"), null, "long after it");
hear({ type: "order.placed", topic: "user:1" });
await live.fetch("/orders");
assert.equal(sent.get("traceparent"), null, "because of one that nobody traces");
live.close();
"""


def test_what_is_fetched_because_of_a_message_belongs_to_its_trace(tmp_path: Path) -> None:
    """Soon after it, and only then: what a person clicks later is not caused by it."""
    (tmp_path / "client.mjs").write_text(SCRIPT.read_text())
    (tmp_path / "page.mjs").write_text(PROGRAM)
    command = [program("node"), "page.mjs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
