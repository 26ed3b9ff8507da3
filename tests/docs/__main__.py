"""`python -m tests.docs`, which is `make pages`: write the reference pages that come from the code."""

from __future__ import annotations

from tests.docs.written import DOCS, PAGES


def main() -> None:
    """Write each page."""
    for name, page in PAGES.items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
