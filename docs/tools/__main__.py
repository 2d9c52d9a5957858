"""Writes the pages that are made from the code: `python docs/tools`; `--check` says which are out of date."""

import sys
from pathlib import Path

import capabilities_page
import commands_page
import options_page
import reference_page

PAGES = {
    "reference.md": reference_page.page,
    "options.md": options_page.page,
    "capabilities.md": capabilities_page.page,
    "commands.md": commands_page.page,
}


def main() -> int:
    """Write the pages, or compare them; return 1 if one is out of date."""
    docs = Path(__file__).parent.parent
    texts = {docs / name: page() for name, page in PAGES.items()}
    if "--check" in sys.argv[1:]:
        stale = [path.name for path, text in texts.items() if not path.exists() or path.read_text() != text]
        if stale:
            print(f"out of date: {', '.join(stale)}; write them with: python docs/tools", file=sys.stderr)
        return 1 if stale else 0
    for path, text in texts.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
