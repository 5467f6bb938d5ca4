"""A page of metrics, read by name and labels."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Page = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Page:
    """The values of a page by name and labels. Fails for an invalid page."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(page: Page, name: str, **labels: str) -> float:
    return page.get((name, frozenset(labels.items())), 0)
