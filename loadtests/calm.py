"""Asks an idle server before the load: does it answer, how long are texts, which vectors are right?"""

from collections.abc import Iterable

import httpx
from tqdm import tqdm

from triptych.loadtests.checks import Checker
from triptych.loadtests.content.corpus import NAME, probe
from triptych.loadtests.dialects import Dialect, Target
from triptych.loadtests.golden import Golden
from triptych.loadtests.outcomes import Outcome, judged
from triptych.loadtests.scenario import TASKS, Flow, Request, Scenario, Task
from triptych.loadtests.traffic import Traffic

# Length of the texts that lengths are calibrated by.
PROBE_UNITS = 150


class Unusable(Exception):
    """The target cannot be tested; the text says why."""


class Calm:
    """Asks one target."""

    def __init__(self, target: Target) -> None:
        self._dialect = Dialect(target)
        self._checker = Checker()
        self._client = httpx.Client(timeout=target.timeout, verify=target.verify, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def ask(self, request: Request) -> Outcome:
        """The good outcome of one request. Raises `Unusable` for any other."""
        call = self._dialect.encode(request)
        try:
            response = self._client.post(call.url, content=call.body, headers=call.headers)
        except httpx.HTTPError as error:
            raise Unusable(f"{call.url} does not answer: {error or type(error).__name__}") from None
        answer = response.status_code, response.headers, response.content
        outcome = judged(self._dialect, self._checker, request, *answer)
        if outcome.kind:
            said = f"{outcome.kind}, {outcome.detail}"
            raise Unusable(f"{call.url} answers a single request of flow {request.flow.name} with {said}")
        return outcome

    def calibrate(self, scenario: Scenario) -> dict[str, float]:
        """How many tokens a unit of text has in each language, as the server counts; empty if it does not.

        Raises `Unusable`, also if the dialect cannot express a flow.
        """
        reasons = {flow.name: self._dialect.unsupported(flow) for flow in scenario.flows}
        if faults := [f"flow {flow}: {reason}" for flow, reason in reasons.items() if reason]:
            raise Unusable(f"dialect {self._dialect.name}: {'; '.join(faults)}")
        found: dict[str, float] = {}
        for flow in scenario.flows:
            for language in (NAME, *(flow.languages or scenario.languages)) if flow.images < 1 else ():
                if language not in found:
                    text = probe(language, PROBE_UNITS)
                    outcome = self.ask(Request(Flow(name=flow.name, task=flow.task), [text]))
                    if not outcome.tokens:
                        return {}
                    found[language] = outcome.tokens / PROBE_UNITS
        return found

    def golden(self, tasks: Iterable[Task] = TASKS) -> Golden:
        """The vectors that the server returns when each golden text is asked for alone. Raises `Unusable`."""
        golden = Golden(source="the deployment itself, before the load")
        wanted = [request for request in golden.requests() if request.flow.task in set(tasks)]
        for request in tqdm(wanted, desc="golden vectors", unit="text", leave=False, disable=None):
            golden.learn(request, self.ask(request).vectors[0])
        return golden

    def rehearse(self, traffic: Traffic) -> None:
        """Ask for each flow once. Raises `Unusable`."""
        for flow in traffic.flows.values():
            self.ask(traffic.of(flow))
