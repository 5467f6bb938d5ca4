"""What the generator makes of what happens to its requests, and of being late with them."""

import socket

from tests.unit.loadtests.apart import apart
from tests.unit.loadtests.test_conductor import plan_of


@apart
def test_a_server_that_is_silent_is_a_timeout_and_one_that_is_not_there_refuses() -> None:
    from locust.contrib.fasthttp import FastHttpSession
    from locust.env import Environment

    from loadtests.generator import Generator
    from loadtests.users import User, prepare

    plan = plan_of("open")
    plan.timeout = 0.2
    with socket.socket() as silent, socket.socket() as absent:
        for taken in (silent, absent):
            taken.bind(("127.0.0.1", 0))
        silent.listen()
        for where, kind in ((silent, "timeout"), (absent, "connection refused")):
            plan.target = {"": f"http://127.0.0.1:{where.getsockname()[1]}"}
            generator = Generator(plan, "process 1", 0, 1)
            prepare(generator)
            pool = {"client_pool": User.client_pool, "max_retries": 0}
            client = FastHttpSession(None, Environment().events.request, None, **pool)
            outcome = generator._ask(generator._traffic.any(), client, 0.0)
            assert outcome.kind == kind, outcome
