"""How users are brought in and sent home while the segments of a closed loop pass."""

import time

import pytest

from loadtests import shapes
from loadtests.plan import Done, Plan
from loadtests.results import Process
from loadtests.scenario import Scenario
from tests.unit.loadtests.apart import apart


def plan_of(loop: str, **fields: object) -> Plan:
    flow = {"name": "query", "task": "retrieval.query"}
    scenario = Scenario.model_validate({"about": "Queries.", "flows": [flow | fields]})
    return Plan(
        scenario=scenario.model_dump_json(),
        seed="seed",
        loop="closed" if loop == "closed" else "open",
        arrivals="constant",
        dialect="jina",
        target={"": "http://127.0.0.1:9"},
        model="m",
        key=None,
        verify=True,
        timeout=5,
        in_flight=10,
        calibration={},
        golden=None,
    )


@apart
def test_a_ramp_of_users_begins_at_its_first_load_and_ends_at_its_last() -> None:
    import gevent

    from loadtests.conductor import Conductor

    for low, high in ((10, 100), (100, 10)):
        conductor = Conductor(plan_of("closed"), 1, "127.0.0.1", 0, lambda: None)
        asked: list[tuple[float, int, float]] = []

        def start(count: int, a_second: float) -> None:
            asked.append((time.monotonic() - begin, count, a_second))  # noqa: B023
            # As long as locust takes for what it does at once.
            gevent.sleep(0.5)

        conductor._runner.start = start  # type: ignore[method-assign]
        done = Process(name="process 1", cpu=0.0, lag=0.0, late=0.0)
        conductor._done.put(Done(number=1, processes=[done], compared=0))
        begin = time.monotonic()
        conductor.run(shapes.ramp("closed", low, high, 2.0), lambda *_: None, adaptive=False)
        conductor.close()
        (_, first, _), (at, last, a_second), *_ = asked
        assert (first, last) == (low, high), asked
        # They are all there when the segment ends, 0.3 s after what is said of it and 2 s on.
        assert at + 90 / a_second == pytest.approx(2.3, abs=0.1), asked
