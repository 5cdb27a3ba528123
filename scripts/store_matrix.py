"""Which store keeps which promise, as the contract suite finds out: one line a promise, one column a store.

python -m scripts.store_matrix [arguments for pytest]

``yes``: kept; ``-``: not claimed (see the capabilities in docs/stores.md); ``waived``: known and explained;
``NO``: broken. Exit code 1 if any is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import pytest

SUITE: Final = Path(__file__).resolve().parent.parent / "tests" / "contract" / "test_stores.py"

#: What a promise is for a store, the worst of its parameters last.
_ORDER: Final = ("-", "yes", "waived", "NO")


class Matrix:
    """A pytest plugin that keeps what became of each promise with each store."""

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, str]] = {}
        self._stores: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Remember which store each test is about."""
        for item in items:
            if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
                store = item.callspec.params.get("backend")
                if isinstance(store, str):
                    self._stores[item.nodeid] = (item.originalname, store)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The outcome of one phase of a test."""
        known = self._stores.get(report.nodeid)
        if known is None or (report.when != "call" and report.passed):
            return
        test, store = known
        row = self.cells.setdefault(test, {})
        row[store] = max(row.get(store, "-"), _verdict(report), key=_ORDER.index)


def _verdict(report: pytest.TestReport) -> str:
    if report.failed:
        return "NO"
    if report.skipped:
        return "waived" if hasattr(report, "wasxfail") else "-"
    return "yes"


def table(cells: dict[str, dict[str, str]]) -> list[str]:
    """The matrix as lines of text."""
    stores = sorted({store for row in cells.values() for store in row})
    width = max((len(test) for test in cells), default=0)
    lines = ["promise".ljust(width) + "".join(f"  {store:8}" for store in stores)]
    for test, row in cells.items():
        promise = test.removeprefix("test_").replace("_", " ")
        lines.append(promise.ljust(width) + "".join(f"  {row.get(store, '-'):8}" for store in stores))
    return [line.rstrip() for line in lines]


def main(arguments: list[str]) -> int:
    """Run the suite and print the matrix."""
    matrix = Matrix()
    code = pytest.main([str(SUITE), "--no-header", "--quiet", *arguments], plugins=[matrix])
    print("\n".join(["", *table(matrix.cells)]))
    return 0 if code == pytest.ExitCode.OK else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
