"""TradeSense's worker: which cache, which handlers, which schedules, which settings of its own.

`python -m worker` runs it until SIGTERM; `python -m worker check`, `doctor`, `tail`, … operate it: every command of
`cachebus`, with these names. The environment may name others (`CACHE`, `HANDLERS`, `SCHEDULES`, `OUTBOX`).

What it runs, each restarted alone when it fails (`cachebus/worker/build.py`):

    events 0…      handlers of the shards this worker holds       refreshes    loads that an event asked for
    bridge         plain PUBLISH messages, into the stream        schedules    jobs, each fire time in one worker
    heartbeat      the file that `check` reads, the roster        pages        with PORT: health, metrics, the live page
"""

import sys

from cachebus.worker.cli import main

TRADESENSE = {
    "CACHE": "tradesense.views:cache",  # the views, and the connection they share
    "HANDLERS": "handlers",  # what an event does
    "SCHEDULES": "schedules",  # what is kept warm, and when
    "READY_CHECK": "tradesense.database:answers",  # without its database no view can be loaded
}

if __name__ == "__main__":
    sys.exit(main(prog="python -m worker", command="worker", defaults=TRADESENSE))
