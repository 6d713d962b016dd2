"""All processes of a job stop at the same point, whenever the signal and the points come."""

import random
import sys
import threading
import time

import pytest

from models import processes
from models.host import interruption


class Store:
    """The coordinator's key-value store, as far as it is used; each call takes a random time."""

    def __init__(self, rng):
        self._values, self._changed, self._rng = {}, threading.Condition(), rng

    def key_value_set(self, key, value):
        time.sleep(self._rng.uniform(0, 0.005))
        with self._changed:
            if key in self._values:
                raise RuntimeError("ALREADY_EXISTS")
            self._values[key] = value
            self._changed.notify_all()

    def key_value_try_get(self, key):
        with self._changed:
            if key not in self._values:
                raise RuntimeError("NOT_FOUND")
            return self._values[key]

    def blocking_key_value_get(self, key, patience):
        time.sleep(self._rng.uniform(0, 0.005))
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._values, 0.05):
                raise RuntimeError("DEADLINE_EXCEEDED")
            return self._values[key]


class Ranks(threading.local):
    """The number of the process that a thread belongs to."""

    rank = 0


@pytest.mark.parametrize("seed", range(6))
def test_all_processes_stop_at_the_same_point(monkeypatch, seed):
    rng, count = random.Random(seed), 4
    store, ranks, told = Store(rng), Ranks(), []
    monkeypatch.setattr(processes, "count", lambda: count)
    monkeypatch.setattr(processes, "index", lambda: ranks.rank)
    distributed = type("distributed", (), {"global_state": type("State", (), {"client": store})})
    jax = type("jax", (), {"_src": type("src", (), {"distributed": distributed})})
    monkeypatch.setitem(sys.modules, "jax", jax)

    class Thread(threading.Thread):  # It belongs to the process that starts it.
        def __init__(self, **options):
            super().__init__(**options)
            self.rank = ranks.rank

        def run(self):
            ranks.rank = self.rank
            super().run()

    monkeypatch.setattr(interruption.threading, "Thread", Thread)
    monkeypatch.setattr(interruption, "end", lambda grace: None)
    monkeypatch.setattr(interruption, "SECONDS_BETWEEN_LOOKS", 0.003)
    stopped, signals = {}, {rng.randrange(count): rng.randrange(30) for _ in range(2)}

    def process(rank):
        ranks.rank, stops = rank, interruption.Stops()
        stops._thread = threading.current_thread()
        stops.watch(5.0, told.append)
        for point in range(2000):
            if signals.get(rank) == point:
                stops.ask(f"signal to {rank}")
            if stops.here():
                stopped[rank] = point, stops.reason
                return
            time.sleep(rng.uniform(0, 0.002))

    threads = [Thread(target=process, args=(rank,)) for rank in range(count)]
    for rank, thread in enumerate(threads):
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(stopped) == count and len(set(stopped.values())) == 1, stopped
    point, reason = stopped[0]
    assert point >= min(signals.values()) and reason in {f"signal to {rank}" for rank in signals}
    assert len(told) == count and all("within 5 s" in line for line in told)


def test_one_process_stops_at_the_next_point_and_forgets():
    stops = interruption.Stops()
    assert not stops.here()
    stops.ask("SIGTERM")
    stops.ask("SIGINT")
    assert stops.here() and stops.reason == "SIGTERM"
    other = []
    thread = threading.Thread(target=lambda: other.append(stops.here()))
    thread.start()
    thread.join()
    assert other == [False], "points of other threads have no order"
    stops.forget()
    assert not stops.here()
