"""A rule that restricts covers every spelling of its paths, however many empty and dot segments it has."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mks_hardening._core.web.paths import PathRules

RULES = PathRules(["/a/b", "/folder/"], parameter="paths")


def by_segments(path: str) -> str:
    """Resolve a path as RFC 3986, 5.2.4 does, with parameters and backslashes, one segment after the other."""
    kept: list[str] = []
    for segment in path.replace("\\", "/").split("/"):
        step = segment.partition(";")[0] if segment.startswith((".", ";")) else segment
        if step == "..":
            del kept[-1:]
        elif step not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept)


@given(st.lists(st.sampled_from(["/", ".", "..", ";x", "\\", "a", "b", "folder"]), max_size=12).map("".join))
@example("/a/././b")
@example("/./a/.//b/.")
@example("/x/..;/a/b")
@example("folder/../b")
def test_any_spelling_is_covered_like_the_plain_path(path: str) -> None:
    path = f"/{path}"
    # Applications route by the path as it is.
    listed = [by_segments(path), path]
    assert RULES.covers(path) == any(
        each in {"/a/b", "/folder"} or each.startswith("/folder/") for each in listed
    )


@pytest.mark.parametrize("segment", ["/", "/.", "\\", "/./"])
def test_many_empty_segments_hide_nothing(segment: str) -> None:
    assert RULES.covers(segment * 50_000 + "/a/b")
    assert not RULES.covers(segment * 50_000 + "/a/c")
