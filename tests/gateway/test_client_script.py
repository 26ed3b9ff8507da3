"""`client.js` without a browser: what `live.fetch` asks for, and which clocks it remembers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.support.lacking import program

CLIENT = Path(__file__).parents[2] / "cachebus/gateway/static/client.js"
PROGRAM = """
globalThis.WebSocket = class { close() {} send() {} };
const sent = [];
let said = null;
globalThis.fetch = async (url, init) => {
  sent.push([url, init.cache, init.headers.get("Fresh-After"), init.headers.get("X"), init.method ?? null]);
  return { headers: new Headers(said ? { "Fresh-After": said } : {}) };
};
const { connect } = await import(process.argv[1]);
const live = connect({ topics: [], url: "http://gateway/" });
await live.fetch("/a");
live.hear({ topic: "t", id: null, fresh_after: "9.e1" });
said = "100.e1";
await live.fetch("/b", { method: "POST", headers: { X: "1" } });
said = "20.e1";
await live.fetch("/c", { cache: "default" });
live.heard(null);
await live.fetch("/d");
live.close();
console.log(JSON.stringify(sent));
"""


def test_a_page_gets_nothing_older_than_it_heard_of_by_message_or_response() -> None:
    """The browser's cache has to ask, unless the page says otherwise; the newest clock goes along, no older one."""
    command = [program("node"), "--input-type=module", "-e", PROGRAM, CLIENT.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        ["/a", "no-cache", None, None, None],
        ["/b", "no-cache", "9.e1", "1", "POST"],
        ["/c", "default", "100.e1", None, None],
        ["/d", "no-cache", "100.e1", None, None],
    ]
