"""Scenarios: those that come with the harness, what their requests are, and what is refused."""

from itertools import islice
from pathlib import Path

import pytest

from loadtests.dialects import dialect
from loadtests.golden import GOLDEN_TEXTS
from loadtests.request import Request
from loadtests.scenario import Scenario, names, read_scenario
from loadtests.traffic import Traffic


def requests(scenario: Scenario, count: int, seed: str = "a", **options: object) -> list[Request]:
    traffic = Traffic(scenario, seed, **options)  # type: ignore[arg-type]
    return list(islice(iter(traffic.any, None), count))


def written(tmp_path: Path, text: str) -> Scenario:
    file = tmp_path / "mine.toml"
    file.write_text(f'about = "x"\n[[flows]]\nname = "one"\ntask = "retrieval.query"\n{text}\n')
    return read_scenario(str(file))


@pytest.mark.parametrize("name", names())
def test_every_scenario_makes_requests_that_our_server_is_asked_for(name: str) -> None:
    scenario = read_scenario(name)
    spoken = dialect("jina", {"": "http://127.0.0.1:1"}, model="m", key=None)
    made = requests(scenario, 60)
    assert all(spoken.unsupported(request) is None and spoken.encode(request).body for request in made)
    assert len({repr(request.inputs) for request in made}) == 60


def test_flows_come_by_their_weights() -> None:
    made = requests(read_scenario("common"), 2000)
    share = sum(request.flow == "query" for request in made) / 2000
    assert share == pytest.approx(0.6, abs=0.04)


def test_the_same_seed_gives_the_same_requests_and_another_does_not() -> None:
    scenario = read_scenario("mix")
    assert requests(scenario, 40, "a") == requests(scenario, 40, "a")
    assert requests(scenario, 40, "a") != requests(scenario, 40, "b")


def test_processes_never_send_the_same_text() -> None:
    scenario = read_scenario("common")
    texts = [
        text
        for process in range(3)
        for request in requests(scenario, 300, process=process, processes=3)
        for text in request.inputs
    ]
    assert len(texts) == len(set(texts))


def test_texts_come_again_only_where_it_is_asked_for(tmp_path: Path) -> None:
    repeated = written(
        tmp_path, 'tokens = {distribution = "uniform", low = 5, high = 50}\nrepeats = {distinct = 30}'
    )
    texts = [text for request in requests(repeated, 500) for text in request.inputs]
    counts = sorted((texts.count(text) for text in set(texts)), reverse=True)
    # The same text each time, length and all, the most frequent far more often than the others.
    assert len(counts) <= 30
    assert counts[0] > 5 * counts[-1]


def test_one_request_in_so_many_holds_a_golden_text_at_the_place_it_names() -> None:
    made = requests(read_scenario("bulk"), 400, golden=GOLDEN_TEXTS, golden_every=4)
    held = [request for request in made if request.golden]
    assert len(held) == pytest.approx(100, abs=35)
    for request in held:
        [(place, number)] = request.golden.items()
        assert request.inputs[place] == GOLDEN_TEXTS["retrieval.passage"][number]
    assert len({place for request in held for place in request.golden}) > 10


@pytest.mark.parametrize("name", ["documents", "images", "rerank", "multivector"])
def test_what_cannot_be_compared_with_one_vector_holds_none(name: str) -> None:
    assert not any(
        request.golden for request in requests(read_scenario(name), 50, golden=GOLDEN_TEXTS, golden_every=1)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokens = 0", "tokens"),
        ('task = "retrieval"', "TOML"),
        ("weight = -1", "weight"),
        ("late_chunking = true\nimages = 0.5", "late_chunking takes texts only"),
        ("late_chunking = true\nmultivector = true", "one vector for each input"),
        ('kind = "rerank"\nmultivector = true', "gives scores"),
        ("tokenss = 3", "tokenss"),
        ('tokens = {distribution = "uniform", low = 5, high = 3}', "low"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused_with_the_file_and_the_field(
    text: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        written(tmp_path, text)
    assert "mine.toml" in str(refused.value)


def test_two_flows_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one is there twice"):
        written(tmp_path, '[[flows]]\nname = "one"\ntask = "text-matching"')


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="interactive"):
        read_scenario("absent")
