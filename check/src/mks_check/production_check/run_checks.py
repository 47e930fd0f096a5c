"""Checks of the run itself: what could not be read or judged, and suppressions that have no effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mks_check.production_check.check_definition import CheckGroup
from mks_check.production_check.facts import Facts
from mks_check.production_check.finding import Evidence

__all__ = ["GROUP"]

GROUP: Final = CheckGroup()

_LINK: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html"


@GROUP.register(
    "MKS-RUN-001",
    "warning",
    en=("Something could not be read, so it was not checked.", "Correct the file, or check it by hand."),
    ja=(
        "読み取れないものがあり、その部分は検査していません。",
        "ファイルを修正するか、手作業で確認してください。",
    ),
    link=_LINK,
)
def unreadable(facts: Facts) -> Iterator[Evidence]:
    """Report everything that a source could not read."""
    for what, why in facts.unreadable:
        yield Evidence(
            text=f"{what}: {why}" if why else what, key=why, file=what if "/" in what or "." in what else ""
        )


@GROUP.register(
    "MKS-RUN-002",
    "error",
    en=("An accepted finding has passed its date.", "Fix the finding, or decide again and set a new date."),
    ja=(
        "許容した検出結果の期限が切れています。",
        "問題を修正するか、改めて判断して新しい期限を設定してください。",
    ),
    link=_LINK,
)
def expired_suppression(_: Facts) -> Iterator[Evidence]:
    """Report nothing: the runner does, when it applies the suppressions."""
    yield from ()


@GROUP.register(
    "MKS-RUN-003",
    "note",
    en=("An accepted finding no longer occurs.", "Remove the silence or the entry of the baseline."),
    ja=(
        "許容した検出結果は、もう発生していません。",
        "その指定（--silence または基準ファイルの項目）を削除してください。",
    ),
    link=_LINK,
)
def obsolete_suppression(_: Facts) -> Iterator[Evidence]:
    """Report nothing: the runner does, when it applies the suppressions."""
    yield from ()
