"""Turns: nobody gets two at a time, and who asked least goes first."""

from __future__ import annotations

import threading
import time

import pytest

from engine.running.fair_turns import MOST_WAITING_EACH, FairTurns
from engine.store.errors import DataloupeError


class Crowd:
    """People who each ask for a turn in a thread of their own."""

    def __init__(self, turns: FairTurns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.threads: list[threading.Thread] = []

    def ask(self, who: str) -> None:
        """Ask, and come back once the request waits."""
        before = len(self.turns._waiting)
        self.threads.append(threading.Thread(target=self._run, args=(who,)))
        self.threads[-1].start()
        while len(self.turns._waiting) == before and self.threads[-1].is_alive():
            time.sleep(0.001)

    def _run(self, who: str) -> None:
        with self.turns.turn(who):
            self.order.append(who)

    def done(self) -> list[str]:
        for thread in self.threads:
            thread.join()
        return self.order


@pytest.fixture
def one() -> FairTurns:
    return FairTurns(slots=1, waiting_seconds=30)


def test_who_asked_for_less_goes_before_who_waits_longer(one: FairTurns) -> None:
    crowd = Crowd(one)
    with one.turn("busy"):
        for who in ("busy", "busy", "busy", "new"):
            crowd.ask(who)
    assert crowd.done() == ["new", "busy", "busy", "busy"]


def test_among_equals_who_waits_longest_goes_first(one: FairTurns) -> None:
    crowd = Crowd(one)
    with one.turn("busy"):
        for who in ("a", "b", "c"):
            crowd.ask(who)
    assert crowd.done() == ["a", "b", "c"]


def test_a_person_has_one_turn_at_a_time_and_others_get_the_free_slot() -> None:
    turns = FairTurns(slots=2, waiting_seconds=30)
    crowd = Crowd(turns)
    with turns.turn("slow") as first:
        crowd.ask("slow")
        assert crowd.order == []
        with turns.turn("other") as second:
            assert {first, second} == {0, 1}
            assert crowd.order == []
    assert crowd.done() == ["slow"]


def test_requests_that_wait_are_few_and_do_not_wait_forever() -> None:
    turns = FairTurns(slots=1, waiting_seconds=0.05)
    with (
        turns.turn("slow"),
        pytest.raises(DataloupeError, match="Other requests are running"),
        turns.turn("other"),
    ):
        pass
    turns = FairTurns(slots=1, waiting_seconds=30)
    crowd = Crowd(turns)
    with turns.turn("slow"):
        for _ in range(MOST_WAITING_EACH):
            crowd.ask("slow")
        with (
            pytest.raises(DataloupeError, match="earlier requests are still running"),
            turns.turn("slow"),
        ):
            pass
    assert len(crowd.done()) == MOST_WAITING_EACH


def test_a_turn_ends_with_an_error_too(one: FairTurns) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="mine"), one.turn("a"):
            raise ValueError("mine")
