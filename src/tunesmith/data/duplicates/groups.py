"""Groups of duplicates: rows that are linked by pairs, by union-find (Tarjan 1975)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.duplicates.ngrams import Indices


class Groups:
    """Rows 0 to count - 1, each alone at first. The root of a group is its first row."""

    def __init__(self, count: int) -> None:
        self._above = np.arange(count)

    def join(self, pairs: Iterable[tuple[int, int]]) -> None:
        for i, j in pairs:
            a, b = self._root(i), self._root(j)
            self._above[max(a, b)] = min(a, b)

    def roots(self, rows: Indices) -> Indices:
        """The root of each of these rows."""
        roots = self._above[rows]
        while not np.array_equal(above := self._above[roots], roots):
            roots = above
        return roots

    def apart(self, i: Indices, j: Indices) -> NDArray[np.bool_]:
        """Which of the pairs are not in one group."""
        apart: NDArray[np.bool_] = self.roots(i) != self.roots(j)
        return apart

    def all_roots(self) -> Indices:
        """The root of every row."""
        return self.roots(np.arange(len(self._above)))

    def _root(self, row: int) -> int:
        above = self._above
        while (up := int(above[row])) != row:
            above[row] = above[up]  # path halving
            row = up
        return row
