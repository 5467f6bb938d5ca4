"""Scenarios: the requests they make, and what is refused."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.unit.router.catalogs import parse_request
from triptych.loadtests.dialects import Dialect, Target
from triptych.loadtests.golden import GOLDEN_TEXTS
from triptych.loadtests.scenario import Request, Scenario, names, read_scenario
from triptych.loadtests.traffic import Traffic
from triptych.router.api.rerank import parse_rerank
from triptych.workers.shared.families import V4


def requests(scenario: Scenario, count: int, seed: str = "a", **options: object) -> list[Request]:
    traffic = Traffic(scenario, seed, **options)  # type: ignore[arg-type]
    return list(islice(iter(traffic.any, None), count))


def written(tmp_path: Path, text: str) -> Scenario:
    file = tmp_path / "mine.toml"
    file.write_text(f'about = "x"\n[[flows]]\nname = "one"\ntask = "retrieval.query"\n{text}\n')
    return read_scenario(str(file))


@pytest.mark.parametrize(
    ("name", "dialect"), [*((name, "jina") for name in names()), ("common", "openai"), ("common", "vllm")]
)
def test_every_scenario_fits_our_api(name: str, dialect: Any) -> None:
    scenario = read_scenario(name)
    spoken = Dialect(Target(addresses={"": "http://127.0.0.1:1"}, dialect=dialect, model=V4.name))
    made = requests(scenario, 60)
    for request in made:
        parse = parse_rerank if request.flow.kind == "rerank" else parse_request
        parse(spoken.encode(request).body, max_items=512)
    assert len({repr(request.inputs) for request in made}) == 60


def test_flows_follow_their_weights() -> None:
    made = requests(read_scenario("common"), 2000)
    share = sum(request.flow.name == "query" for request in made) / 2000
    assert share == pytest.approx(0.6, abs=0.04)


def test_requests_depend_on_the_seed() -> None:
    scenario = read_scenario("mix")
    assert requests(scenario, 40, "a") == requests(scenario, 40, "a")
    assert requests(scenario, 40, "a") != requests(scenario, 40, "b")


def test_processes_share_no_text() -> None:
    scenario = read_scenario("common")
    texts = [
        text
        for process in range(3)
        for request in requests(scenario, 300, process=process, processes=3)
        for text in request.inputs
    ]
    assert len(texts) == len(set(texts))


def test_golden_texts_are_mixed_in() -> None:
    made = requests(read_scenario("bulk"), 400, golden=GOLDEN_TEXTS, golden_share=0.25)
    held = [request for request in made if request.golden]
    assert len(held) == pytest.approx(100, abs=35)
    for request in held:
        [(place, number)] = request.golden.items()
        assert request.inputs[place] == GOLDEN_TEXTS["retrieval.passage"][number]
    assert len({place for request in held for place in request.golden}) > 10


@pytest.mark.parametrize("name", ["documents", "images", "rerank", "multivector"])
def test_flows_without_golden_texts(name: str) -> None:
    made = requests(read_scenario(name), 50, golden=GOLDEN_TEXTS, golden_share=1.0)
    assert not any(request.golden for request in made)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokens = 0", "tokens"),
        ('task = "retrieval"', "TOML"),
        ("weight = -1", "weight"),
        ("tokenss = 3", "tokenss"),
        ("languages = { xx = 1 }", r"languages\.xx.*not one of en, de"),
        ("languages = { en = 0 }", r"languages\.en"),
        ('kind = "rerank"\nmultivector = true', "rerank"),
        ("tokens = true", "tokens"),
        ("tokens = []", "tokens"),
        ("tokens = {median = 5, sigma = inf, low = 2, high = 9}", "sigma"),
        ("tokens = {median = 1, sigma = 1, low = 5, high = 9}", "median"),
    ],
)
def test_invalid_scenario_names_file_and_field(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        written(tmp_path, text)
    assert "mine.toml" in str(refused.value)


def test_duplicate_flow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="duplicate name one"):
        written(tmp_path, '[[flows]]\nname = "one"\ntask = "text-matching"')
