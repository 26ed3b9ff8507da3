"""`metrics`: what is published on /metrics, as a table, as a Grafana dashboard, as alert rules."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping

from cachebus.integrations.dashboard import dashboard, rules
from cachebus.integrations.metric_table import TABLE
from cachebus.worker.commands.output import write_json, write_table


def main(asked: argparse.Namespace, _environment: Mapping[str, str]) -> int:
    """Print it. Asks nobody."""
    if asked.verb == "table":
        names = ("METRIC", "KIND", "LABELS", "MEANING")
        rows = [(row.published, row.kind, ",".join(row.labels), row.meaning) for row in TABLE.values()]
        if asked.json:
            write_json([dict(zip(map(str.lower, names), row, strict=True)) for row in rows])
        else:
            write_table(names, rows, "")
    else:
        made = dashboard() if asked.verb == "dashboard" else rules()
        sys.stdout.write(json.dumps(made, indent=2) + "\n")
    return 0
