"""`pg-triggers`: write the SQL by which PostgreSQL tells of rows that other programs change. Connects to nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from cachebus.integrations.sqlalchemy.row_changes import RowTriggers


def main(asked: argparse.Namespace, _environment: Mapping[str, str]) -> int:
    """Print one statement. Raises: ConfigurationError."""
    triggers = RowTriggers(asked.table, asked.tag, asked.into)
    sys.stdout.write(triggers.drop() if asked.drop else triggers.create())
    return 0
