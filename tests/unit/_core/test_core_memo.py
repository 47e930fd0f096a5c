"""The bound of a memo, which clients fill."""

from collections import OrderedDict

from mks_hardening._core.memo import Memo, drop_oldest


class Counted:
    """A pure function that says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def __call__(self, question: object) -> str:
        self.asked.append(question)
        return str(question)


def test_it_is_full_at_its_bound_and_not_before() -> None:
    counted = Counted()
    memo = Memo(counted, entries=3)
    for _ in range(2):
        assert [memo[number] for number in range(3)] == ["0", "1", "2"]
    assert counted.asked == [0, 1, 2]
    assert memo[3] == "3"
    assert dict(memo) == {3: "3"}


def test_a_flood_of_questions_stays_within_the_default_bounds() -> None:
    memo = Memo(Counted())
    sizes = set()
    for number in range(10_000):
        _ = memo[number]
        sizes.add(len(memo))
    assert max(sizes) == 4096
    _ = memo["x" * 512], memo["x" * 513]
    assert "x" * 512 in memo
    assert "x" * 513 not in memo


def test_a_question_of_the_longest_length_is_kept() -> None:
    memo = Memo(Counted(), longest=4)
    for question in ("abcd", ("ab", "cd")):
        assert memo[question]
        assert question in memo
    for question in ("abcde", ("ab", "cde")):
        assert memo[question]
        assert question not in memo


def test_the_oldest_values_are_dropped() -> None:
    known = OrderedDict((number, str(number)) for number in range(5))
    drop_oldest(known, 3)
    assert list(known) == [2, 3, 4]
