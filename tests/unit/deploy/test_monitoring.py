"""The alert rules, the scrape configuration and the dashboard, checked by promtool and by the metrics."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.prometheus import MONITORING, ROOT, alerts, panels, tool
from triptych.router.observe.gauges import make_gauges
from triptych.router.observe.metrics import Metrics
from triptych.workers.worker_metrics import WorkerMetrics

ALERTS = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
CASES = ROOT / "tests" / "data" / "alerts_test.yml"


def promtool(*arguments: object) -> str:
    done = subprocess.run([tool("promtool"), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_rules_and_jobs() -> None:
    promtool("check", "config", MONITORING / "prometheus.yml")


def test_each_alert_fires_and_stays_quiet() -> None:
    promtool("test", "rules", CASES)
    tests = yaml.safe_load(CASES.read_text())["tests"]
    fired: dict[str, set[bool]] = {}
    for case in (case for test in tests for case in test["alert_rule_test"]):
        fired.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert fired == {rule["alert"]: {True, False} for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_has_a_runbook(rule: dict[str, dict[str, str]]) -> None:
    page, anchor = rule["annotations"]["runbook_url"].split("#")
    headings = re.findall(r"^## (.*)$", Path(ROOT / page).read_text(), re.MULTILINE)
    assert anchor in [heading.lower() for heading in headings]


def test_expressions_name_existing_metrics() -> None:
    registry = Metrics().registry
    make_gauges(registry)
    described = [*registry.collect(), *WorkerMetrics(lambda: 0, lambda: 0)._registry.collect()]
    known = {metric.name for metric in described}
    expressions = [*alerts().values(), *(one for panel in panels().values() for one in panel)]
    named = {name for one in expressions for name in re.findall(r"triptych_\w+", one)}
    assert {re.sub("_(total|bucket|count|sum)$", "", name) for name in named} <= known
