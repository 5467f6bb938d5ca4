"""What is found out before the load, one request at a time: does it answer, how long are texts, what is
right."""

import time
from collections.abc import Iterable
from typing import NamedTuple

import httpx
from tqdm import tqdm

from loadtests.bench.stats import percentile
from loadtests.checks import Checker
from loadtests.dialects import Dialect, Reply, Unreadable
from loadtests.golden import Golden
from loadtests.request import Request
from loadtests.results import Idle
from loadtests.scenario import Scenario
from loadtests.traffic import Traffic, corpus_of

# Words or characters in the texts that lengths are calibrated by.
PROBE_UNITS = 150
IDLE_REQUESTS = 20
# A flow whose requests are slow is asked fewer.
IDLE_SECONDS = 10.0


class Unusable(Exception):
    """The target cannot be tested; the text says why, and what to do where that is known."""


class Asked(NamedTuple):
    reply: Reply
    seconds: float


class Calm:
    """Asks a deployment that has nothing else to do."""

    def __init__(self, dialect: Dialect, timeout: float, verify: bool) -> None:
        self._dialect = dialect
        self._client = httpx.Client(timeout=timeout, verify=verify, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def check_supported(self, requests: Iterable[Request]) -> None:
        """Raise `Unusable` where a flow asks for what the dialect does not have."""
        reasons = {request.flow: self._dialect.unsupported(request) for request in requests}
        if faults := [f"flow {flow}: {reason}" for flow, reason in reasons.items() if reason]:
            raise Unusable(f"dialect {self._dialect.name}: {'; '.join(faults)}")

    def ask(self, request: Request) -> Asked:
        """One request and how long it took. Raises `Unusable`."""
        call = self._dialect.encode(request)
        begin = time.monotonic()
        try:
            response = self._client.post(call.url, content=call.body, headers=call.headers)
        except httpx.HTTPError as error:
            raise Unusable(f"{_bare(call.url)} does not answer: {error or type(error).__name__}") from None
        seconds = time.monotonic() - begin
        if response.status_code != 200:
            text = response.text[:300]
            answer = f"{_bare(call.url)} answers {response.status_code}"
            raise Unusable(f"{answer} to a request of flow {request.flow}: {text}")
        try:
            return Asked(self._dialect.decode(request, response.content), seconds)
        except Unreadable as error:
            raise Unusable(f"{_bare(call.url)}: {error}") from None

    def calibrate(self, scenario: Scenario, seed: str) -> dict[str, float]:
        """Tokens of a word, or a character where words are not set apart, by language, as the server counts.

        Languages of servers that do not count are left out.
        """
        found: dict[str, float] = {}
        for flow in scenario.flows:
            corpus = corpus_of(flow, scenario, f"{seed} calibration")
            missing = [name for name in corpus.languages if name not in found]
            for language in missing if flow.images < 1 else ():
                request = Request(
                    flow=flow.name, task=flow.task, inputs=[corpus.probe(language, PROBE_UNITS)]
                )
                if tokens := self.ask(request).reply.tokens:
                    found[language] = tokens / PROBE_UNITS
        return found

    def golden(self, tasks: Iterable[str]) -> Golden:
        """The vectors that it gives when each text is asked for alone. Raises `Unusable`."""
        golden = Golden(source="the deployment itself, before the load")
        wanted = [request for request in golden.requests() if request.task in set(tasks)]
        for request in tqdm(wanted, desc="golden vectors", unit="text", leave=False, disable=None):
            golden.learn(request, self.ask(request).reply)
        return golden

    def idle(self, traffic: Traffic) -> dict[str, Idle]:
        """How long each flow's requests take when nothing else is done. Raises `Unusable`, also for a wrong
        reply."""
        checker = Checker()
        found = {}
        for name, flow in tqdm(traffic.flows.items(), desc="idle", unit="flow", leave=False, disable=None):
            times, tokens = [], 0
            begin = time.monotonic()
            for number in range(IDLE_REQUESTS + 1):
                request = traffic.of(flow)
                asked = self.ask(request)
                if wrong := checker.check(request, asked.reply):
                    raise Unusable(f"flow {name}: the reply to a single request is {wrong}")
                # The first may meet cold caches.
                if number:
                    times.append(asked.seconds)
                    tokens += asked.reply.tokens or 0
                if times and time.monotonic() - begin > IDLE_SECONDS:
                    break
            found[name] = Idle(
                requests=len(times),
                p50=percentile(times, 0.5),
                p99=percentile(times, 0.99),
                tokens=tokens / len(times),
            )
        return found


def _bare(url: str) -> str:
    """Without what may be secret in it."""
    return str(httpx.URL(url).copy_with(userinfo=b"", query=None))
