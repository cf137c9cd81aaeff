"""The Merkle tree agrees with the definition of RFC 9162, written down naively, on any tree."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from interlock.engine.audit import verify_bundle
from interlock.lib.merkle import Frontier, Tree, leaf_hash, verify_consistency, verify_inclusion

LEAVES = st.lists(st.binary(max_size=8), min_size=1, max_size=70).map(lambda items: [leaf_hash(item) for item in items])


def definition(leaves: list[bytes]) -> bytes:
    """MTH of section 2.1.1, word for word, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + definition(leaves[:k]) + definition(leaves[k:])).digest()


def frontier_of(leaves: list[bytes]) -> Frontier:
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier


@given(LEAVES)
def test_appending_gives_the_defined_root(leaves: list[bytes]) -> None:
    assert frontier_of(leaves).root() == definition(leaves) == Tree(leaves).root()


@given(LEAVES, st.data())
def test_a_frontier_continues_where_it_was_kept(leaves: list[bytes], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(leaves)))
    kept = frontier_of(leaves[:cut])
    again = Frontier(kept.size, kept.nodes)
    for leaf in leaves[cut:]:
        again.append(leaf)
    assert again.root() == definition(leaves)


@given(LEAVES, st.data())
def test_every_leaf_is_proven_and_nothing_else_is(leaves: list[bytes], data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(leaves)))
    index = data.draw(st.integers(0, size - 1))
    start = data.draw(st.integers(0, index))
    root = definition(leaves[:size])
    path = Tree(leaves[start:], frontier_of(leaves[:start])).inclusion_proof(index, size)
    assert verify_inclusion(leaves[index], index, size, path, root)
    assert verify_bundle.included(leaves[index], index, size, path, root)
    wrong = leaf_hash(b"another leaf, longer than any")
    assert not verify_inclusion(wrong, index, size, path, root)
    assert not verify_bundle.included(wrong, index, size, path, root)


@given(LEAVES, st.data())
def test_a_longer_log_is_proven_to_begin_with_the_shorter_one(leaves: list[bytes], data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(leaves)))
    old = data.draw(st.integers(1, size))
    start = data.draw(st.integers(0, old))
    path = Tree(leaves[start:], frontier_of(leaves[:start])).consistency_proof(old, size)
    roots = definition(leaves[:old]), definition(leaves[:size])
    assert verify_consistency(old, roots[0], size, roots[1], path)
    assert verify_bundle.consistent((old, roots[0]), (size, roots[1]), path)


@given(LEAVES, st.data())
def test_a_rewritten_log_is_not_proven_to_begin_with_the_old_one(leaves: list[bytes], data: st.DataObject) -> None:
    old = data.draw(st.integers(1, len(leaves)))
    changed = data.draw(st.integers(0, old - 1))
    forged = [*leaves]
    forged[changed] = leaf_hash(b"another leaf, longer than any")
    path = Tree(forged).consistency_proof(old)
    root = definition(forged)
    assert not verify_consistency(old, definition(leaves[:old]), len(leaves), root, path)
    assert not verify_bundle.consistent((old, definition(leaves[:old])), (len(leaves), root), path)


@given(LEAVES, st.lists(st.binary(min_size=32, max_size=32), max_size=8), st.data())
def test_no_made_up_path_proves_anything(leaves: list[bytes], path: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    root = definition(leaves)
    right = Tree(leaves).inclusion_proof(index)
    assert verify_inclusion(leaves[index], index, len(leaves), path, root) == (path == right)
