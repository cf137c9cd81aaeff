"""The Merkle tree gives RFC 9162's values and its proofs hold, for trees small enough to check by hand."""

from __future__ import annotations

from hashlib import sha256

import pytest

from interlock.lib.merkle import (
    EMPTY_ROOT,
    Frontier,
    Tree,
    leaf_hash,
    node_hash,
    root_from_inclusion,
    verify_consistency,
    verify_inclusion,
)

# d0 to d6 of RFC 9162 section 2.1.5, where only the shapes are given.
D = [leaf_hash(bytes([index])) for index in range(7)]
G, H, I2, J = node_hash(D[0], D[1]), node_hash(D[2], D[3]), node_hash(D[4], D[5]), D[6]
K, L = node_hash(G, H), node_hash(I2, J)
ROOT = node_hash(K, L)


def test_an_empty_tree_has_the_hash_of_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT == sha256(b"").digest()
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_leaves_and_nodes_are_told_apart() -> None:
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(D[0] + D[1]) != node_hash(D[0], D[1])


def test_seven_leaves_have_the_root_of_the_rfc_figure() -> None:
    frontier = Frontier()
    for leaf in D:
        frontier.append(leaf)
    assert frontier.root() == Tree(D).root() == ROOT


def test_the_paths_of_the_rfc_example() -> None:
    tree = Tree(D)
    assert tree.inclusion_proof(0) == [D[1], H, L]
    assert tree.inclusion_proof(3) == [D[2], G, L]
    assert tree.inclusion_proof(4) == [D[5], J, K]
    assert tree.inclusion_proof(6) == [I2, K]


def test_the_consistency_proofs_of_the_rfc_example() -> None:
    tree = Tree(D)
    assert tree.consistency_proof(3) == [D[2], D[3], G, L]
    assert tree.consistency_proof(4) == [L]
    assert tree.consistency_proof(6) == [I2, J, K]
    assert tree.consistency_proof(7) == []


def test_a_proof_of_another_leaf_position_or_size_is_refused() -> None:
    path = Tree(D).inclusion_proof(3)
    assert verify_inclusion(D[3], 3, 7, path, ROOT)
    assert not verify_inclusion(D[2], 3, 7, path, ROOT)
    assert not verify_inclusion(D[3], 2, 7, path, ROOT)
    assert not verify_inclusion(D[3], 3, 7, path[:-1], ROOT)
    assert not verify_inclusion(D[3], 3, 7, [*path, D[0]], ROOT)
    assert not verify_inclusion(D[3], 3, 7, path, K)


@pytest.mark.parametrize(("index", "size"), [(7, 7), (-1, 7), (0, 0)])
def test_a_position_outside_the_tree_leads_nowhere(index: int, size: int) -> None:
    assert root_from_inclusion(D[0], index, size, []) is None


def test_a_consistency_proof_for_another_history_is_refused() -> None:
    tree = Tree(D)
    path = tree.consistency_proof(3)
    assert verify_consistency(3, tree.root(3), 7, ROOT, path)
    assert not verify_consistency(3, tree.root(2), 7, ROOT, path)
    assert not verify_consistency(3, tree.root(3), 7, K, path)
    assert not verify_consistency(3, tree.root(3), 7, ROOT, path[1:])
    assert not verify_consistency(3, tree.root(3), 7, ROOT, [])
    assert not verify_consistency(4, K, 7, ROOT, [])
    assert not verify_consistency(0, EMPTY_ROOT, 7, ROOT, [])
    assert not verify_consistency(7, ROOT, 3, tree.root(3), path)
    assert not verify_consistency(7, ROOT, 7, K, [])


@pytest.mark.parametrize(("size", "nodes"), [(1, []), (2, [D[0], D[1]]), (-1, []), (1, [b"short"])])
def test_a_frontier_that_cannot_be_is_refused(size: int, nodes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="does not have"):
        Frontier(size, nodes)


def test_a_tree_that_begins_late_says_which_leaf_it_does_not_know() -> None:
    start = Frontier()
    for leaf in D[:4]:
        start.append(leaf)
    with pytest.raises(ValueError, match="leaf 2 is not among"):
        Tree(D[4:], start).inclusion_proof(0)


def test_a_proof_beyond_the_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="has no leaf"):
        Tree(D).inclusion_proof(7)
    with pytest.raises(ValueError, match="does not extend"):
        Tree(D).consistency_proof(8)
