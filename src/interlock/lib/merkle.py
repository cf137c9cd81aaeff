"""The Merkle tree of RFC 9162 section 2.1 (the same as RFC 6962's): root, appending, proofs and their verification."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def _split(count: int) -> int:
    """The largest power of two smaller than `count` (which is at least 2)."""
    return 1 << ((count - 1).bit_length() - 1)


class Frontier:
    """All that must be remembered of a tree in order to append to it: the roots of its perfect subtrees.

    `nodes` holds one hash of 32 bytes for each bit that is set in `size`, the largest subtree first. Appending costs
    one hash on average and at most log2(size).

    Raises:
        ValueError: `nodes` cannot belong to a tree of `size` leaves.
    """

    __slots__ = ("_nodes", "_size")

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        self._nodes = list(nodes)
        self._size = size
        if size < 0 or len(self._nodes) != size.bit_count() or any(len(node) != 32 for node in self._nodes):  # noqa: PLR2004
            msg = f"a tree of {size} leaves does not have the {len(self._nodes)} subtree roots that were given"
            raise ValueError(msg)

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        return self._size

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, the largest first."""
        return tuple(self._nodes)

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        nodes, size = self._nodes, self._size
        while size & 1:
            leaf = sha256(b"\x01" + nodes.pop() + leaf).digest()
            size >>= 1
        nodes.append(leaf)
        self._size += 1

    def root(self) -> bytes:
        """The root of the tree as it stands."""
        if not self._nodes:
            return EMPTY_ROOT
        root = self._nodes[-1]
        for node in reversed(self._nodes[:-1]):
            root = node_hash(node, root)
        return root

    def subtrees(self) -> dict[tuple[int, int], bytes]:
        """The perfect subtrees by the half-open range of leaves that each covers."""
        found: dict[tuple[int, int], bytes] = {}
        start = 0
        widths = (1 << bit for bit in reversed(range(self._size.bit_length())) if self._size >> bit & 1)
        for width, node in zip(widths, self._nodes, strict=True):
            found[start, start + width] = node
            start += width
        return found


class Tree:
    """A tree of which the leaves from `start.size` on are known one by one, and what lies before only as subtrees.

    With that, proofs about a few late leaves of a long log need no early leaf.
    """

    def __init__(self, leaves: Sequence[bytes], start: Frontier | None = None) -> None:
        before = start or Frontier()
        self._first = before.size
        self._leaves = leaves
        self._known = before.subtrees()
        self.size = before.size + len(leaves)

    def root(self, size: int | None = None) -> bytes:
        """The root over the first `size` leaves, all by default. Raises ValueError when that is not known."""
        wanted = self.size if size is None else size
        return EMPTY_ROOT if wanted == 0 else self._hash(0, wanted)

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """PATH(index, D_size) of section 2.1.3.1: the sibling hashes from the leaf up.

        Raises:
            ValueError: There is no such leaf, or it lies before what is known.
        """
        wanted = self.size if size is None else size
        if not 0 <= index < wanted:
            msg = f"a tree of {wanted} leaves has no leaf {index}"
            raise ValueError(msg)
        path: list[bytes] = []
        start, end = 0, wanted
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start = middle
        return path[::-1]

    def consistency_proof(self, old_size: int, size: int | None = None) -> list[bytes]:
        """PROOF(old_size, D_size) of section 2.1.4.1.

        Raises:
            ValueError: `old_size` is not between 1 and `size`, or needs a leaf that is not known.
        """
        wanted = self.size if size is None else size
        if not 0 < old_size <= wanted:
            msg = f"a tree of {wanted} leaves does not extend one of {old_size}"
            raise ValueError(msg)
        path: list[bytes] = []
        start, end, whole = 0, wanted, True
        while old_size != end:
            middle = start + _split(end - start)
            if old_size <= middle:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start, whole = middle, False
        if not whole:
            path.append(self._hash(start, end))
        return path[::-1]

    def _hash(self, start: int, end: int) -> bytes:
        known = self._known.get((start, end))
        if known is not None:
            return known
        if end - start == 1:
            if not self._first <= start < self.size:
                msg = f"leaf {start} is not among the leaves {self._first} to {self.size - 1} that are known"
                raise ValueError(msg)
            return self._leaves[start - self._first]
        middle = start + _split(end - start)
        node = node_hash(self._hash(start, middle), self._hash(middle, end))
        self._known[start, end] = node
        return node


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that an inclusion proof leads to (section 2.1.3.2), None when the proof has the wrong shape."""
    if not 0 <= index < size:
        return None
    first, last, root = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if first & 1 or first == last:
            root = node_hash(sibling, root)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            root = node_hash(root, sibling)
        first >>= 1
        last >>= 1
    return root if last == 0 else None


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `leaf` (a leaf hash) is number `index` of the tree with this size and root."""
    return root_from_inclusion(leaf, index, size, path) == root


def verify_consistency(old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the tree with `size` and `root` begins with the tree of `old_size` and `old_root` (section 2.1.4.2)."""
    if not 0 < old_size <= size:
        return False
    if old_size == size:
        return not path and old_root == root
    steps = list(path)
    if old_size & (old_size - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    first, last = old_size - 1, size - 1
    while first & 1:
        first >>= 1
        last >>= 1
    old, new = steps[0], steps[0]
    for sibling in steps[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        first >>= 1
        last >>= 1
    return last == 0 and old == old_root and new == root
