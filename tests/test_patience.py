"""What fails for now is tried again, until it succeeds or someone asks to stop."""

from __future__ import annotations

import threading

import pytest

from climatestream.errors import StoreError, StoreUnavailable, Transient
from climatestream.patience import patiently


class Flaky:
    """Raises some times, then answers."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.left = failures
        self.error = error or StoreUnavailable("away", retry_after_s=0.0)

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise self.error
        return "answer"


def test_it_tries_until_there_is_an_answer_and_tells_each_failure() -> None:
    failures: list[Transient] = []
    assert patiently(Flaky(3), threading.Event(), failures.append) == "answer"
    assert [str(error) for error in failures] == ["away"] * 3


def test_it_waits_longer_each_time_and_never_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", waits.append)
    patiently(Flaky(12, StoreUnavailable("away")), stop, lambda _: None)
    assert 0.05 <= waits[0] <= 0.1
    assert waits[5] > waits[0]
    assert all(5.0 <= wait <= 10.0 for wait in waits[-3:])


def test_a_stop_ends_the_wait_at_once() -> None:
    stop = threading.Event()
    endless = Flaky(10**9, StoreUnavailable("away", retry_after_s=60.0))
    assert patiently(endless, stop, lambda _: stop.set()) is None


def test_what_time_cannot_mend_is_raised() -> None:
    with pytest.raises(StoreError):
        patiently(Flaky(1, StoreError("damaged")), threading.Event(), lambda _: None)
