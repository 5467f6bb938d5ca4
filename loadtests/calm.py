"""Asks an idle server before the load: does it answer, how long are texts, which vectors are right?"""

from collections.abc import Container

import httpx
from tqdm import tqdm

from triptych.loadtests.checks import Checker, Outcome
from triptych.loadtests.content.corpus import NAME, probe
from triptych.loadtests.dialects import Dialect, Target
from triptych.loadtests.golden import Golden
from triptych.loadtests.scenario import TASKS, Flow, Request, Scenario, Task
from triptych.loadtests.traffic import Traffic

# Length of the texts that lengths are calibrated by.
PROBE_UNITS = 150


class Unusable(Exception):
    """The target cannot be tested; the text says why."""


class Calm:
    """Asks one target. Every method raises `Unusable` unless all replies are good."""

    def __init__(self, target: Target) -> None:
        self._checker = Checker(Dialect(target))
        self._client = httpx.Client(timeout=target.timeout, verify=target.verify, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def ask(self, request: Request) -> Outcome:
        """The outcome of one request."""
        call = self._checker.dialect.encode(request)
        try:
            response = self._client.post(call.url, content=call.body, headers=call.headers)
        except httpx.HTTPError as error:
            raise Unusable(f"{call.url} does not answer: {error or type(error).__name__}") from None
        outcome = self._checker.judge(request, response.status_code, response.headers, response.content)
        if outcome.kind:
            said = f"{outcome.kind}, {outcome.detail}"
            raise Unusable(f"{call.url} answers a single request of flow {request.flow.name} with {said}")
        return outcome

    def calibrate(self, scenario: Scenario) -> dict[str, float]:
        """How many tokens a unit of text has in each language, as the server counts; empty if it does not.

        Raises `Unusable` also if the dialect cannot express a flow.
        """
        dialect = self._checker.dialect
        reasons = {flow.name: dialect.unsupported(flow) for flow in scenario.flows}
        if faults := [f"flow {flow}: {reason}" for flow, reason in reasons.items() if reason]:
            raise Unusable(f"dialect {dialect.name}: {'; '.join(faults)}")
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

    def golden(self, tasks: Container[Task] = TASKS) -> Golden:
        """The vectors that the server returns when each golden text is asked for alone."""
        golden = Golden(source="the deployment itself, before the load")
        for request in tqdm(
            golden.requests(tasks), desc="golden vectors", unit="text", leave=False, disable=None
        ):
            golden.learn(request, self.ask(request).vectors[0])
        return golden

    def rehearse(self, traffic: Traffic) -> None:
        """Ask for each flow once."""
        for flow in traffic.flows.values():
            self.ask(traffic.of(flow))
