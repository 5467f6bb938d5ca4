"""The requests of a scenario, one after another, the same for the same seed."""

import random
from collections.abc import Mapping, Sequence
from itertools import accumulate

from loadtests.content.corpus import Corpus
from loadtests.content.images import image
from loadtests.content.lengths import Repeats
from loadtests.request import Input, Request, Task
from loadtests.scenario import Flow, Scenario

Calibration = Mapping[str, float]
GoldenTexts = Mapping[Task, Sequence[str]]


class Traffic:
    """What one process, of several, sends.

    `golden` has the texts whose vectors are known, for each task; one request in `golden_every`, on average,
    holds one of them at a random place, where its flow can be compared.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: str,
        *,
        process: int = 0,
        processes: int = 1,
        calibration: Calibration | None = None,
        golden: GoldenTexts | None = None,
        golden_every: int = 50,
    ) -> None:
        self.flows = {flow.name: flow for flow in scenario.flows}
        self._seed = seed
        self._serial, self._step = process, processes
        self._draw = random.Random(f"{seed} {process}")
        self._weights = list(accumulate(flow.weight for flow in scenario.flows))
        self._golden, self._golden_share = golden or {}, 1 / golden_every
        self._corpora = {flow.name: corpus_of(flow, scenario, seed, calibration) for flow in scenario.flows}
        self._repeats = {
            flow.name: Repeats(flow.repeats.zipf, flow.repeats.distinct)
            for flow in scenario.flows
            if flow.repeats
        }

    def any(self) -> Request:
        """The next request of whichever flow's turn it is, by their weights."""
        [flow] = self._draw.choices(list(self.flows.values()), cum_weights=self._weights)
        return self.of(flow)

    def of(self, flow: Flow) -> Request:
        """The next request of `flow`."""
        inputs = [self._input(flow) for _ in range(flow.inputs.draw(self._draw))]
        query = ""
        if flow.kind == "rerank":
            query = self._corpora[flow.name].text(self._next(flow), flow.query_tokens.draw(self._draw))
        golden = self._put_golden(flow, inputs)
        return Request(
            flow=flow.name,
            kind=flow.kind,
            task=flow.task,
            inputs=inputs,
            query=query,
            encoding=flow.encoding,
            dimensions=flow.dimensions,
            multivector=flow.multivector,
            late_chunking=flow.late_chunking,
            headers=dict(flow.headers),
            golden=golden,
        )

    def _input(self, flow: Flow) -> Input:
        serial = self._next(flow)
        # What comes again has to be of the same length too.
        draw = random.Random(f"{self._seed} {flow.name} {serial}") if flow.repeats else self._draw
        if flow.images and draw.random() < flow.images:
            width, height = flow.picture.width.draw(draw), flow.picture.height.draw(draw)
            return image(self._seed, serial, width, height, flow.picture.form)
        return self._corpora[flow.name].text(serial, flow.tokens.draw(draw))

    def _next(self, flow: Flow) -> int:
        if flow.name in self._repeats:
            return self._repeats[flow.name].draw(self._draw)
        self._serial += self._step
        return self._serial

    def _put_golden(self, flow: Flow, inputs: list[Input]) -> dict[int, int]:
        texts = self._golden.get(flow.task, ())
        comparable = flow.kind == "embed" and not flow.multivector and not flow.late_chunking
        if not texts or not comparable or flow.images == 1 or self._draw.random() >= self._golden_share:
            return {}
        place, number = self._draw.randrange(len(inputs)), self._draw.randrange(len(texts))
        inputs[place] = texts[number]
        return {place: number}


def corpus_of(flow: Flow, scenario: Scenario, seed: str, calibration: Calibration | None = None) -> Corpus:
    """The texts of `flow`, in its own languages or those of the scenario."""
    # Those that repeat are numbered apart from those that must not.
    name = f"{seed} {flow.name}" if flow.repeats else seed
    corpus = Corpus(name, flow.languages or scenario.languages)
    if calibration:
        corpus.calibrate({name: calibration[name] for name in corpus.languages if name in calibration})
    return corpus
