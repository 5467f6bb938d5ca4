"""The requests of a scenario, one after another, reproducible from a seed."""

import random
from collections.abc import Mapping, Sequence
from itertools import count

from triptych.loadtests.content.corpus import Corpus
from triptych.loadtests.content.pictures import image
from triptych.loadtests.scenario import Flow, Input, Lengths, Request, Scenario, Task, draw_length


class Traffic:
    """The requests that one of several processes sends.

    `calibration`: tokens of a unit of text, by language. `golden`: texts whose vectors are known, by task; a
    request contains one with the chance `golden_share`, at a random place.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: str,
        *,
        process: int = 0,
        processes: int = 1,
        calibration: Mapping[str, float] = {},
        golden: Mapping[Task, Sequence[str]] = {},
        golden_share: float = 0.02,
    ) -> None:
        self.flows = {flow.name: flow for flow in scenario.flows}
        self._seed = seed
        # Numbers of inputs, which no other process uses.
        self._serials = count(process + processes, processes)
        self._draw = random.Random(f"{seed} {process}")
        self._weights = [flow.weight for flow in scenario.flows]
        self._golden, self._golden_share = golden, golden_share
        self._corpora = {
            flow.name: Corpus(seed, flow.languages or scenario.languages, calibration)
            for flow in scenario.flows
        }

    def any(self) -> Request:
        """The next request, of a flow drawn by weight."""
        [flow] = self._draw.choices(list(self.flows.values()), self._weights)
        return self.of(flow)

    def of(self, flow: Flow) -> Request:
        """The next request of `flow`."""
        inputs = [self._input(flow) for _ in range(draw_length(flow.inputs, self._draw))]
        query = self._text(flow, flow.query_tokens) if flow.kind == "rerank" else ""
        return Request(flow, inputs, query, self._put_golden(flow, inputs))

    def _input(self, flow: Flow) -> Input:
        if flow.images and self._draw.random() < flow.images:
            picture = flow.picture
            width, height = (draw_length(side, self._draw) for side in (picture.width, picture.height))
            return image(self._seed, next(self._serials), width, height, picture.form)
        return self._text(flow, flow.tokens)

    def _text(self, flow: Flow, tokens: Lengths) -> str:
        length = draw_length(tokens, self._draw)
        return self._corpora[flow.name].text(self._draw, next(self._serials), length)

    def _put_golden(self, flow: Flow, inputs: list[Input]) -> dict[int, int]:
        texts = self._golden.get(flow.task, ())
        comparable = flow.kind == "embed" and not flow.multivector and not flow.late_chunking
        if not texts or not comparable or flow.images == 1 or self._draw.random() >= self._golden_share:
            return {}
        place, number = self._draw.randrange(len(inputs)), self._draw.randrange(len(texts))
        inputs[place] = texts[number]
        return {place: number}
