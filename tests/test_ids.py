"""Ids that a process makes, and what is made of them."""

from __future__ import annotations

from itertools import pairwise

from embedded_orch.process import Process, id_after, random_bits


def test_ids_that_follow_another_are_nobody_elses_and_sort_right_after_it() -> None:
    process = Process()
    made = [process.new_id() for _ in range(1_000)]

    for one, next_one in pairwise(made):
        following = [id_after(one, place) for place in (1, 2, 3)]
        assert one < following[0] < following[1] < following[2] < next_one
        assert all(id.version == 7 for id in following)


def test_every_bit_that_names_are_made_of_is_random() -> None:
    """Seen to fail with the last bits of an id: of four names only one was ever given."""
    all_set = Process(entropy=lambda count: b"\xff" * count).new_id()
    none_set = Process(entropy=bytes).new_id()

    assert random_bits(all_set, 32) == 0xFFFFFFFF
    assert random_bits(none_set, 32) == 0
