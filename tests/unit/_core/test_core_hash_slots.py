"""Hash slots of keys."""

import pytest

from mks_hardening._core.backend.hash_slots import hash_slot


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        # From the specification of Redis Cluster, its appendix and the section on hash tags.
        ("123456789", 0x31C3),
        (b"123456789", 0x31C3),
        ("{user1000}.following", hash_slot("user1000")),
        ("foo{{bar}}zap", hash_slot("{bar")),
        ("foo{bar}{zap}", hash_slot("bar")),
    ],
)
def test_a_key_is_in_the_slot_of_its_hash_tag(key: str | bytes, slot: int) -> None:
    assert hash_slot(key) == slot


def test_an_empty_hash_tag_does_not_count() -> None:
    assert hash_slot("foo{}{bar}") != hash_slot("bar")
