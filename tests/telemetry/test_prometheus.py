"""`Prometheus`: what a scraper gets; and the dashboard that asks for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics import exposition, parser
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, StepContext
from returns_pipeline.telemetry._instruments import INSTRUMENTS, Instrument
from returns_pipeline.telemetry.prometheus import Prometheus
from returns_pipeline.testing import Wait, run, timed

if TYPE_CHECKING:
    from prometheus_client.core import Metric

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))


def names_of(instrument: Instrument) -> set[str]:
    """Return the names that a query may have, by the rules of OpenTelemetry for Prometheus."""
    name = instrument.name.replace(".", "_")
    if instrument.unit == "s":
        name += "_seconds"
    if instrument.kind == "histogram":
        return {f"{name}_bucket", f"{name}_count", f"{name}_sum"}
    return {f"{name}_total" if instrument.kind == "counter" else name}


def shown_by(registry: CollectorRegistry) -> list[Metric]:
    """Return what a scraper that speaks OpenMetrics reads."""
    text: Any = exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
    families: Any = parser.text_string_to_metric_families  # its types are absent
    return list(families(text.decode()))


def test_a_scraper_gets_counts_sums_and_cumulated_buckets() -> None:
    registry = CollectorRegistry()

    async def step(value: float, ctx: StepContext) -> Result[float, str]:
        import asyncio

        await asyncio.sleep(value)
        return Success(value) if value else Failure("no")

    async def main() -> None:
        ctx = StepContext("shop", observer=Prometheus(registry))
        items = (0.01, 0.5, 400.0, 0)
        await ResultStream.of(timed(*items)).bind_step(step, ctx).run_all()

    run(main())
    lines = generate_latest(registry).decode().splitlines()
    name = "returns_pipeline_step_duration_seconds"
    labels = 'error_type="",outcome="succeeded",pipeline="shop",stage="step"'
    shown = [line for line in lines if line.startswith(name) and 'outcome="succeeded"' in line]
    values = {re.sub(r'.*le="([^"]*)".*', r"\1", line): line.split()[-1] for line in shown}
    assert values["0.005"] == "0.0"
    assert values["0.01"] == "1.0"  # a bound belongs to its bucket
    assert values["0.5"] == values["300.0"] == "2.0"
    assert values["+Inf"] == "3.0"
    assert f"{name}_count{{{labels}}} 3.0" in lines
    assert f"{name}_sum{{{labels}}} 400.51" in lines
    failed = labels.replace('""', '"str"').replace("succeeded", "failed")
    assert f"{name}_count{{{failed}}} 1.0" in lines
    assert f"# TYPE {name} histogram" in lines


def test_all_that_is_shown_is_valid_openmetrics() -> None:
    registry = CollectorRegistry()
    observer = Prometheus(registry)
    s = ResultStream.of(timed(1, Wait(9.0), 2)).chunks_or_timeout(3, 2.0)
    run(s.observed(observer, name='a "name" \\ \n').run())
    families = {family.name: family for family in shown_by(registry)}
    assert len(families) == len(INSTRUMENTS)
    closed = families["returns_pipeline_window_closed"].samples
    assert {sample.labels["pipeline"] for sample in closed} == {'a "name" \\ \n'}


def test_names_are_those_that_opentelemetry_gives_to_prometheus() -> None:
    registry = CollectorRegistry()
    _ = Prometheus(registry)
    shown = {family.name: family.type for family in shown_by(registry)}
    kinds = {"counter": "counter", "histogram": "histogram", "gauge": "gauge", "balance": "gauge"}
    assert shown == {
        re.sub("_(total|bucket)$", "", min(names_of(each))): kinds[each.kind]
        for each in INSTRUMENTS
    }


def test_two_observers_of_a_registry_count_together_and_two_registries_apart() -> None:
    first, second = CollectorRegistry(), CollectorRegistry()

    async def main() -> None:
        for registry in (first, first, second):
            s = ResultStream.of(timed(1)).chunks_or_timeout(2, 9.0)
            await s.observed(Prometheus(registry), name="shop").run()

    run(main())
    series = {"pipeline": "shop", "stage": "chunks_or_timeout", "reason": "end"}
    name = "returns_pipeline_window_closed_total"
    assert first.get_sample_value(name, series) == 2.0
    assert second.get_sample_value(name, series) == 1.0


def test_a_name_that_is_taken_is_refused_at_once() -> None:
    registry = CollectorRegistry()
    _ = Counter("returns_pipeline_window_closed", "Another one.", registry=registry)
    for _ in range(2):
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            Prometheus(registry)


def expressions(part: Any) -> list[str]:
    """Return all queries in a part of the dashboard."""
    if isinstance(part, dict):
        found = [part["expr"]] if "expr" in part else []
        return found + [each for value in part.values() for each in expressions(value)]
    if isinstance(part, list):
        return [each for value in part for each in expressions(value)]
    return []


def test_the_dashboard_asks_for_metrics_and_labels_that_exist() -> None:
    labels = {
        name: {attribute.replace(".", "_") for attribute in each.attributes} | {"le"}
        for each in INSTRUMENTS
        for name in names_of(each)
    }
    queries = expressions(DASHBOARD["panels"])
    assert len(queries) >= 12
    for query in queries:
        asked = set(re.findall(r"\b(?:returns_pipeline|messaging)_\w+(?=\{)", query))
        assert asked, query
        assert asked <= set(labels), query
        known = set.union(*[labels[name] for name in asked])
        inside = " ".join(re.findall(r"\{([^}]*)\}", query))
        assert set(re.findall(r"(\w+)\s*[=!]~?", inside)) <= known, query
        grouped = ",".join(re.findall(r"\bby \(([^)]*)\)", query))
        assert {name.strip() for name in grouped.split(",") if name.strip()} <= known, query
    assert {'pipeline=~"$pipeline"' in query for query in queries} == {True}


def test_the_dashboard_can_be_imported() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert {v["name"] for v in DASHBOARD["templating"]["list"]} == {"datasource", "pipeline"}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["description"]


def test_the_dashboard_has_a_row_for_each_question_of_the_page() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert len(rows) == 6
    assert all(f"**{title}**" in page for title in rows)
