"""The alert rules, the scrape configuration and the dashboard, checked by promtool and by the metrics."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus import MONITORING, ROOT, alerts, panels, promtool
from tests.unit.test_metrics_docs import router_metrics, worker_metrics

ALERTS = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
CASES = yaml.safe_load((ROOT / "tests" / "data" / "alerts.yml").read_text())
METRICS = router_metrics() | worker_metrics()


def test_prometheus_accepts_rules_and_jobs() -> None:
    promtool("check", "config", MONITORING / "prometheus.yml")


def alert_test(name: str, series: dict[str, str], labels: dict[str, str] | None) -> dict[str, Any]:
    """A test of promtool: after half an hour of `series` the alert fires with `labels`, or is quiet."""
    alert = f'alertname="{name}",alertstate="firing"'
    fired = ",".join([alert, *(f'{label}="{value}"' for label, value in (labels or {}).items())])
    query = {
        "expr": f"ALERTS{{{alert}}}",
        "eval_time": "30m",
        "exp_samples": [{"labels": f"ALERTS{{{fired}}}", "value": 1}] if labels else [],
    }
    return {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": [query],
    }


def test_each_alert_fires_and_stays_quiet(tmp_path: Path) -> None:
    assert CASES.keys() == {rule["alert"] for rule in ALERTS}
    tests = [
        alert_test(name, case[kind], case["labels"] if kind == "fires" else None)
        for name, case in CASES.items()
        for kind in ("fires", "quiet")
    ]
    file = tmp_path / "alerts_test.yml"
    rules = {"rule_files": [str(MONITORING / "alerts.yml")], "evaluation_interval": "1m"}
    file.write_text(yaml.safe_dump({**rules, "tests": tests}))
    promtool("test", "rules", file)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_has_a_runbook(rule: dict[str, dict[str, str]]) -> None:
    page, anchor = rule["annotations"]["runbook_url"].split("#")
    headings = re.findall(r"^## (.*)$", Path(ROOT / page).read_text(), re.MULTILINE)
    assert anchor in [heading.lower() for heading in headings]


def metric_of(series: str) -> str:
    return re.sub("_(bucket|count|sum)$", "", series)


def test_expressions_name_existing_metrics() -> None:
    expressions = [*alerts().values(), *(one for panel in panels().values() for one in panel)]
    named = {name for one in expressions for name in re.findall(r"triptych_\w+", one)}
    assert {metric_of(name) for name in named} <= METRICS.keys()


def test_cases_have_the_labels_of_the_metrics() -> None:
    """So the alerts, which these cases test, have them too."""
    for one in {one for case in CASES.values() for kind in ("fires", "quiet") for one in case[kind]}:
        name, labels = one.split("{")
        if name != "up":
            _, wanted = METRICS[metric_of(name)]
            # These are Prometheus's own.
            assert set(re.findall(r"(\w+)=", labels)) - {"instance", "le"} == set(wanted), one
