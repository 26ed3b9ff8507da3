"""TradeSense's gateway: broadcasts of the worker's handlers, by WebSocket and server-sent events, to browsers.

`python -m gateway` runs it until SIGTERM. Users follow their own topic, and the public ones named here; the environment
may name others (`GATEWAY_PUBLIC_TOPICS`). What a gateway is made of: `cachebus/gateway/`.
"""

import sys

from cachebus.worker.cli import main

TRADESENSE = {
    "GATEWAY_PUBLIC_TOPICS": "market:*",  # prices are everybody's; trades and settings are each user's own
}

if __name__ == "__main__":
    sys.exit(main(prog="python -m gateway", command="gateway", defaults=TRADESENSE))
