"""What lays one document over another holds for all documents."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from interlock.lib.overlay import lay_over
from interlock.lib.strict_yaml import Document, Path, read_yaml

KEYS = st.sampled_from(["a", "b", "c", "d"])
SCALARS = st.booleans() | st.integers(-9, 9) | st.sampled_from(["x", "y", ""])


def _maps(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.dictionaries(KEYS, leaves | st.lists(leaves, max_size=3), max_size=4),
        lambda inner: st.dictionaries(KEYS, leaves | inner, max_size=4),
        max_leaves=12,
    )


BASES = _maps(SCALARS)
OVERLAYS = _maps(SCALARS | st.none())


def _document(data: Any) -> Document:
    """As the reader makes it: JSON is YAML."""
    return read_yaml(json.dumps(data, indent=1).encode())


def _lay(base: Any, overlay: Any) -> tuple[Document, list[Path]]:
    return lay_over(_document(base), "base", _document(overlay), "overlay")


def _paths(value: Any, path: Path = ()) -> set[Path]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path}.union(*(_paths(inner, (*path, key)) for key, inner in below))


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


@given(BASES)
def test_an_empty_overlay_changes_nothing(base: Any) -> None:
    made, absent = _lay(base, {})
    assert (made.data, absent) == (base, [])
    assert set(made.files.values()) == {"base"}


@given(BASES)
def test_over_nothing_an_overlay_without_nulls_is_itself(overlay: Any) -> None:
    made, absent = _lay({}, overlay)
    assert (made.data, absent) == (overlay, [])


@given(BASES, OVERLAYS)
def test_laid_twice_is_laid_once(base: Any, overlay: Any) -> None:
    once = _lay(base, overlay)[0].data
    assert _lay(once, overlay)[0].data == once


@given(BASES, OVERLAYS)
def test_what_the_overlay_says_holds_and_what_it_does_not_mention_stays(base: Any, overlay: Any) -> None:
    made, absent = _lay(base, overlay)
    for key in base.keys() - overlay.keys():
        assert made.data[key] == base[key]
    for key, value in overlay.items():
        if value is None:
            assert key not in made.data
            assert ((key,) in absent) == (key not in base)
        elif not isinstance(value, dict):
            assert made.data[key] == value


@given(BASES, OVERLAYS)
def test_every_value_has_a_place_in_the_file_that_says_it(base: Any, overlay: Any) -> None:
    made, _ = _lay(base, overlay)
    assert set(made.lines) == set(made.files) == _paths(made.data)
    sources = {"base": (base, _document(base)), "overlay": (overlay, _document(overlay))}
    for path, file in made.files.items():
        data, document = sources[file]
        assert made.lines[path] == document.lines[path]
        if not isinstance(_at(made.data, path), dict):
            assert _at(data, path) == _at(made.data, path)


@given(BASES, OVERLAYS)
def test_neither_document_is_changed(base: Any, overlay: Any) -> None:
    before = json.dumps([base, overlay])
    one, other = Document(base, {}), _document(overlay)
    lay_over(one, "base", other, "overlay")
    assert json.dumps([base, overlay]) == before
