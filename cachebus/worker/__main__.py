"""`python -m cachebus.worker`: the same as `cachebus`."""

import sys

from cachebus.worker.cli import script

if __name__ == "__main__":
    sys.exit(script())
