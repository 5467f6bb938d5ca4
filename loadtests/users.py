"""locust's users: one in each process that sends what is due (open loop), or many that each wait for their
reply."""

from typing import ClassVar

from gevent.event import Event
from geventhttpclient.client import HTTPClientPool
from locust import FastHttpUser, task
from locust.contrib.fasthttp import insecure_ssl_context_factory

from loadtests.generator import Generator


class User(FastHttpUser):
    """What both have in common. `generator` and `client_pool` are set before any is made."""

    abstract = True
    generator: ClassVar[Generator]
    # Requests go to whole addresses; locust wants one all the same.
    host = "http://127.0.0.1"


class Arrivals(User):
    """Lends its client to the generator, which knows what is due."""

    @task
    def lend(self) -> None:
        self.generator.lend(self.client)
        Event().wait()


class ClosedLoop(User):
    """Sends the next request once it has the reply to the one before."""

    @task
    def ask(self) -> None:
        self.generator.next(self.client)


CLASSES: dict[str, type[User]] = {"open": Arrivals, "closed": ClosedLoop}


def prepare(generator: Generator) -> None:
    """Have the users of this process work for `generator`."""
    plan = generator.plan
    User.generator = generator
    User.client_pool = HTTPClientPool(
        concurrency=plan.in_flight,
        connection_timeout=plan.timeout,
        network_timeout=plan.timeout,
        # A reply of 2,048 dimensions in one read or few, instead of ten.
        block_size=1 << 16,
        insecure=not plan.verify,
        # `insecure` alone leaves certificates checked, and only the host's name not.
        ssl_context_factory=None if plan.verify else insecure_ssl_context_factory,
    )
