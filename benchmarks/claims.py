"""Write the tables of README and docs from the result files, or check that they follow from them.

``make bench-claims`` writes; ``ARGS=--check`` exits 1 when a table or a claim does not follow from the files.
"""

import argparse
import re
import sys
from collections.abc import Callable

from benchmarks.pretrain import tables as pretrain_tables
from benchmarks.sfod import more_tables as sfod_more_tables
from benchmarks.sfod import tables as sfod_tables
from benchmarks.studies import ROOT
from benchmarks.wsi import longer_tables as wsi_longer_tables
from benchmarks.wsi import tables as wsi_tables

STUDIES = (sfod_tables, sfod_more_tables, wsi_tables, wsi_longer_tables, pretrain_tables)
TABLES: dict[str, Callable[[], str]] = {name: make for study in STUDIES for name, make in study.TABLES.items()}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def problems() -> list[str]:
    """List what does not follow from the result files, a sentence each."""
    found = []
    for study in STUDIES:
        rows, name = study.STUDY.rows(), study.STUDY.name
        if missing := study.missing(rows):
            found.append(f"{name}: {len(missing)} cells are missing, the first is {missing[0]}")
        current = study.STUDY.protocol_hash()
        if stale := [row for row in rows if row["protocol"] != current]:
            found.append(f"{name}: {len(stale)} results are of another protocol than {current}")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            found.append(f"{page.relative_to(ROOT)}: a table does not follow from the result files")
    return found


def filled(text: str) -> str:
    """Return a page with its tables made anew, between ``<!-- name -->`` and ``<!-- end -->``."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if pattern.search(text):
            table = make()
            text = pattern.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]
    return text


def main() -> int:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something does not follow")
    arguments = parser.parse_args()
    if not arguments.check:
        for page in PAGES:
            page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    found = problems()
    print("\n".join(found) or "claims: every table follows from its files")
    return int(bool(found) and arguments.check)


if __name__ == "__main__":
    sys.exit(main())
