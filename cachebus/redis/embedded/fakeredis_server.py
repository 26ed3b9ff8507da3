"""fakeredis' TCP server as a program: `python fakeredis_server.py --port <port>`, for platforms without a Valkey wheel.

As fakeredis ships it, the server closes a connection after each error it answers, and every client's first script is
answered with one (NOSCRIPT). A real server answers and goes on; so does this one. It also tells its run id (INFO, which
fakeredis lacks), so that nobody needs another process's proof of which run it is.
"""

from __future__ import annotations

import argparse
import secrets
from typing import Any

from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler

HOST = "127.0.0.1"
INFO = f"# Server\r\nrun_id:{secrets.token_hex(20)}\r\n"


class _Answering:
    """A fake connection whose errors are replies."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def read_response(self) -> Any:
        """Return the next reply, an error among them."""
        try:
            return self._connection.read_response()
        except Exception as refused:  # noqa: BLE001 - whatever it is, the client shall read it
            return INFO if str(refused).startswith("unknown command 'info'") else refused


class _Handler(TCPFakeRequestHandler):
    def setup(self) -> None:
        super().setup()
        self.current_client = _Answering(self.current_client)  # type: ignore[assignment] # stands in for it


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    server = TcpFakeServer((HOST, parser.parse_args().port))
    server.RequestHandlerClass = _Handler
    server.serve_forever()
