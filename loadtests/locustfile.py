"""Scenarios as locust users, one class and one tag each.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8080 [--tags interactive bulk]

Every reply is checked, and wrong ones are failures by name, such as "wrong: golden". Golden vectors come from
the host itself, before its first user, or from a file (--golden).
"""

import contextlib
import logging
import threading
from argparse import Namespace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import gevent
from locust import FastHttpUser, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import LocustBadStatusCode
from locust.env import Environment
from locust.exception import StopUser

from triptych.loadtests.calm import Calm, Unusable
from triptych.loadtests.checks import Checker, unanswered
from triptych.loadtests.dialects import Dialect, Target
from triptych.loadtests.golden import Golden
from triptych.loadtests.scenario import names, read_scenario
from triptych.loadtests.traffic import Traffic

# As many processes never send the same text.
MAX_PROCESSES = 1000
NO_RESULT = 2

log = logging.getLogger(__name__)
# locust shows every message of level INFO.
logging.getLogger("httpx").setLevel(logging.WARNING)
_preparing = threading.Lock()


def add_options(parser: LocustArgumentParser) -> None:
    dialects = ("jina", "openai", "vllm")
    parser.add_argument("--dialect", choices=dialects, default="jina", help="API of the host (default: jina)")
    parser.add_argument("--model", default="jina-embeddings-v4", help="model name there")
    parser.add_argument("--key", env_var="LOADTEST_KEY", default="", is_secret=True, help="API key")
    parser.add_argument("--golden", default="", help="golden vectors from `triptych loadtest golden`")
    parser.add_argument("--seed", default="locust", help="the same seed gives the same requests")


def keep_tagged(environment: Environment, **_: Any) -> None:
    """Leave out users whose scenario is not among --tags: locust would spawn them without a task."""
    options = _options(environment)
    wanted = set(options.tags or names()) - set(options.exclude_tags or ())
    users = environment.user_classes
    environment.user_classes = [user for user in users if getattr(user, "scenario", None) in wanted]


_events: Any = events
_events.init_command_line_parser.add_listener(add_options)
_events.init.add_listener(keep_tagged)


class ScenarioUser(FastHttpUser):
    """Sends the requests of a scenario, each after the reply to the one before."""

    abstract = True
    scenario: ClassVar[str]
    max_retries = 0

    def on_start(self) -> None:
        try:
            # The first user prepares for all.
            with _preparing:
                self.parts = parts_of(self.environment, self.scenario)
        except (Unusable, ValueError) as error:
            log.error("scenario %s: %s", self.scenario, error)
            self.environment.process_exit_code = NO_RESULT
            runner = self.environment.runner
            assert runner is not None
            # Not from here: it waits for the end of this user.
            gevent.spawn(runner.quit if _options(self.environment).headless else runner.stop)
            raise StopUser from None

    def send(self) -> None:
        checker, traffic = self.parts
        request = traffic.any()
        call, name = checker.dialect.encode(request), f"{self.scenario}: {request.flow.name}"
        # Bytes are sent unchanged, though the type hints do not say so.
        sent: Any = {"data": call.body, "headers": call.headers, "allow_redirects": False}
        # locust counts failures by their kind.
        with self.client.post(call.url, name=name, catch_response=True, **sent) as response:
            error = response.request_meta["exception"]
            if error is not None and not isinstance(error, LocustBadStatusCode):
                outcome = unanswered(error)
            else:
                content, headers = response.content or b"", response.headers
                outcome = checker.judge(request, response.status_code, headers, content)
            if outcome.kind:
                response.failure(outcome.kind)
            else:
                response.success()


def user_class(scenario: str) -> type[ScenarioUser]:
    """A user class that sends `scenario`, and has it as its tag."""
    send = tag(scenario)(task(ScenarioUser.send))
    return type(f"{scenario.title()}User", (ScenarioUser,), {"scenario": scenario, "send": send})


@cache
def parts_of(environment: Environment, name: str) -> tuple[Checker, Traffic]:
    """What the users of a scenario share in this process. Raises `Unusable` and `ValueError`."""
    scenario, target, golden = read_scenario(name), _target(environment), golden_of(environment)
    with contextlib.closing(Calm(target)) as calm:
        calibration = calm.calibrate(scenario)
    traffic = Traffic(
        scenario,
        f"{_options(environment).seed} {name}",
        process=getattr(environment.runner, "worker_index", 0),
        processes=MAX_PROCESSES,
        calibration=calibration,
        golden=golden.texts,
    )
    return Checker(Dialect(target), golden), traffic


@cache
def golden_of(environment: Environment) -> Golden:
    """From --golden, otherwise from the host. Raises `Unusable` and `ValueError`."""
    if file := _options(environment).golden:
        return Golden.load(Path(file))
    with contextlib.closing(Calm(_target(environment))) as calm:
        return calm.golden()


def _target(environment: Environment) -> Target:
    options, addresses = _options(environment), {"": environment.host or ""}
    return Target(addresses=addresses, dialect=options.dialect, model=options.model, key=options.key or None)


def _options(environment: Environment) -> Namespace:
    options: Any = environment.parsed_options
    assert isinstance(options, Namespace)
    return options


# locust finds user classes among the names of this module.
globals().update({f"{name.title()}User": user_class(name) for name in names()})
