"""How processes come together for a run: who is heard, who is sent away, who is missed."""

from collections.abc import Callable
from typing import Any

import pytest

from loadtests.failed import HarnessFailed
from tests.unit.loadtests.apart import apart
from tests.unit.loadtests.test_conductor import plan_of


@apart
def test_a_process_that_is_slow_to_listen_is_told_its_part_all_the_same() -> None:
    import gevent
    from locust.env import Environment

    from loadtests import conductor
    from loadtests.join import Member

    made = Environment.create_worker_runner

    def slowly(*arguments: Any) -> Any:
        """locust says "ready" in there, and our listeners come after it."""
        runner = made(*arguments)
        gevent.sleep(0.5)
        return runner

    Environment.create_worker_runner = slowly  # type: ignore[method-assign]
    conductor.JOIN_SECONDS = 10.0
    leader = conductor.Conductor(plan_of("open"), 1, "127.0.0.1", 0, lambda: None)
    member = gevent.spawn(Member, "127.0.0.1", leader.port, "process 1")
    leader.gather()
    leader.close()
    member.get().wait()


@apart
def test_a_process_too_many_is_sent_away_and_costs_the_others_nothing() -> None:
    import gevent

    from loadtests.conductor import Conductor
    from loadtests.join import Member

    leader = Conductor(plan_of("open"), 1, "127.0.0.1", 0, lambda: None)
    first = gevent.spawn(Member, "127.0.0.1", leader.port, "first")
    leader.gather()
    second = Member("127.0.0.1", leader.port, "second")
    with gevent.Timeout(30), pytest.raises(HarnessFailed, match="--processes"):
        second.wait()
    assert list(leader._runner.members.values()) == ["first"]
    assert leader._runner.user_count <= 1
    leader._check()
    leader.close()
    first.get().wait()


@apart
def test_a_process_that_falls_silent_ends_the_run() -> None:
    import gevent

    from loadtests import plan as messages
    from loadtests.conductor import Conductor

    leader = Conductor(plan_of("closed"), 1, "127.0.0.1", 0, lambda: None)
    gathering = gevent.spawn(leader.gather)
    client = joined(leader.port, "process 1")
    assert client.recv().type == messages.PLAN
    say(client, messages.PREPARED)
    gathering.get()
    leader._check()
    silent(leader._runner)
    with pytest.raises(HarnessFailed, match="heard of process 1 for 10 s"):
        leader._check()
    leader.close()


@apart
def test_a_process_that_fell_silent_before_the_run_leaves_its_place_to_another() -> None:
    from locust.env import Environment

    from loadtests import plan as messages
    from loadtests.master import Master

    master = Master(Environment(), "127.0.0.1", 0, 1)
    dead = joined(master.port, "dead")
    until(lambda: bool(master.members))
    silent(master)
    joined(master.port, "living")
    until(lambda: list(master.members.values()) == ["living"])
    # It was only slow, and now there is one too many.
    say(dead, "heartbeat", {"state": "ready", "current_cpu_usage": 0})
    say(dead, messages.JOINED, {"name": "dead"})
    assert dead.recv().type == messages.REFUSED
    assert list(master.members.values()) == ["living"]
    master.quit()


def joined(port: int, name: str) -> Any:
    """locust's client of a process that has joined and does no more by itself; its id is its name."""
    from locust.rpc import zmqrpc

    from loadtests import plan as messages

    client = zmqrpc.Client("127.0.0.1", port, name)
    client.name = name
    say(client, "client_ready", -1)
    assert client.recv().type == "ack"
    say(client, messages.JOINED, {"name": name})
    return client


def say(client: Any, kind: str, data: object = None) -> None:
    from locust.rpc import Message

    client.send(Message(kind, data, client.name))


def silent(master: Any) -> None:
    """As if nothing had been heard for ten seconds."""
    for client in master.clients.all:
        client.heartbeat = -1
    until(lambda: not master.members)


def until(condition: Callable[[], bool]) -> None:
    import gevent

    with gevent.Timeout(30):
        while not condition():
            gevent.sleep(0.05)
