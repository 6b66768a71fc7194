"""Draw the panels of docs/grafana-dashboard.json, from what Prometheus is shown by a real run.

Not Grafana: its queries are answered here, from the text that a scraper gets every 15 seconds, and
drawn as small charts. ``rate`` is the increase over the last minute, without the extrapolation of
Prometheus. The run has a bad quarter of an hour, on virtual time, so that it can be drawn again.

``python docs/draw_dashboard.py`` writes the picture; a test draws it again and compares.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from returns.result import Failure, Result, Success

from returns_pipeline import (
    CompensationRegistry,
    ResultStream,
    StepContext,
    policies,
    telemetry,
    to_result,
)
from returns_pipeline.connectors import Message, Source
from returns_pipeline.telemetry.prometheus import Prometheus
from returns_pipeline.testing import MemoryBroker, run

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).parent
HERE = DOCS / "live"
MINUTES = 15
EVERY = 15.0  # seconds between two scrapes
RATE = 60.0  # seconds over which a rate is measured
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito
WIDTH, HEIGHT, COLUMNS = 316, 160, 3

Labels = tuple[tuple[str, str], ...]
Scrape = dict[str, dict[Labels, float]]


def scraped(registry: CollectorRegistry) -> Scrape:
    """Return what a scraper gets, by the name of the metric."""
    found: Scrape = defaultdict(dict)
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return found


# The run: orders are read, and written in windows to a database that is away for three minutes.


async def quarter_of_an_hour(registry: CollectorRegistry) -> list[Scrape]:  # noqa: C901
    """Run it, and return what was scraped."""
    loop = asyncio.get_running_loop()
    broker = MemoryBroker()
    breaker = policies.circuit_breaker(5, reset_after=30.0, name="database")
    with telemetry.use(Prometheus(registry), pipeline="orders"):
        ctx = StepContext("orders")

    registered = CompensationRegistry()

    @registered.compensation("delete-rows")
    async def delete_rows(_: str) -> None:
        await asyncio.sleep(0.05)

    async def insert(window: list[Message[int]]) -> Result[int, OSError]:
        minute = loop.time() / 60
        await asyncio.sleep(0.2 if minute < 9 else 2.6)
        away = 4 <= minute < 7
        return Failure(OSError("the database is away")) if away else Success(len(window))

    save: Any = breaker(policies.with_retry(insert, policies.RetryPolicy(2, wait=0.5)))

    async def write(window: list[Message[int]], step: StepContext) -> Result[int, Any]:
        await step.register(delete_rows, step.key)
        result: Result[int, Any] = await to_result(save(window))
        return result

    async def publish() -> None:
        number = 0
        while True:
            await asyncio.sleep(0.3)
            for _ in range(15):
                broker.publish(str(number).encode())
                number += 1

    async def trouble() -> None:
        await asyncio.sleep(11.5 * 60)
        broker.disconnect()

    async def work() -> None:
        again = policies.RetryPolicy(5, wait=1.0)
        driver = broker.driver("billing")
        async with Source(driver, decode=int, max_in_flight=500, reconnect=again) as source:
            windows: ResultStream[Any, Any] = source.messages().chunks_or_timeout(100, 1.5)
            await windows.bind_step(write, ctx).run_all()

    scrapes: list[Scrape] = []
    with telemetry.use(Prometheus(registry), pipeline="orders"):
        tasks = [asyncio.create_task(job()) for job in (publish, trouble, work)]
        for _ in range(int(MINUTES * 60 / EVERY)):
            scrapes.append(scraped(registry))
            await asyncio.sleep(EVERY)
    for task in tasks:
        _ = task.cancel()
    _ = await asyncio.wait(tasks)
    return scrapes


# Its queries.

AGGREGATE = re.compile(r"(sum|max) by \((.*?)\) \((.*)\)$")
SELECT = re.compile(r"(?:(rate|increase)\()?(\w+)\{(.*?)\}(?:\[.*?\]\))?$")
QUANTILE = re.compile(r"histogram_quantile\((.*?), (.*)\)$")


def answered(query: str, scrapes: list[Scrape], at: int) -> dict[Labels, float]:
    """Answer a query of the dashboard at one scrape."""
    if " / " in query:
        above, below = [answered(part, scrapes, at) for part in query.split(" / ")]
        return {key: above[key] / below[key] for key in above if below.get(key)}
    if found := QUANTILE.match(query):
        return quantiles(float(found[1]), answered(found[2], scrapes, at))
    aggregate = AGGREGATE.match(query)
    assert aggregate is not None, query
    names = aggregate[2].split(", ")
    groups: dict[Labels, list[float]] = defaultdict(list)
    for labels, value in selected(aggregate[3], scrapes, at).items():
        known = dict(labels)
        groups[tuple([(name, known.get(name, "")) for name in names])].append(value)
    combine: Callable[[list[float]], float] = sum if aggregate[1] == "sum" else max
    return {labels: combine(values) for labels, values in groups.items()}


def selected(text: str, scrapes: list[Scrape], at: int) -> dict[Labels, float]:
    """Return the series of a metric, their rates, or what they have grown by."""
    found = SELECT.match(text)
    assert found is not None, text
    wanted = [re.match(r'(\w+)(=~|!=|=)"(.*)"', each) for each in found[3].split(", ")]
    now = scrapes[at][found[2]]
    back = max(at - int(RATE / EVERY), 0) if found[1] == "rate" else 0
    series: dict[Labels, float] = {}
    for labels, value in now.items():
        known = dict(labels)
        for each in wanted:
            assert each is not None
            if each[2] == "=" and known.get(each[1], "") != each[3]:
                break
            if each[2] == "!=" and known.get(each[1], "") == each[3]:
                break
        else:
            grown = value - scrapes[back][found[2]].get(labels, 0.0)
            seconds = max((at - back) * EVERY, EVERY)
            series[labels] = {"rate": grown / seconds, "increase": grown}.get(found[1], value)
    return series


def quantiles(part: float, buckets: dict[Labels, float]) -> dict[Labels, float]:
    """Return quantiles of histograms, between the bounds of their buckets."""
    histograms: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, value in buckets.items():
        rest = tuple([each for each in labels if each[0] != "le"])
        histograms[rest].append((float(dict(labels)["le"]), value))
    found: dict[Labels, float] = {}
    for labels, counts in histograms.items():
        counts.sort()
        wanted = part * counts[-1][1]
        low = below = 0.0
        for bound, count in counts:
            if wanted and count >= wanted:
                inside = (wanted - below) / (count - below)
                found[labels] = low if math.isinf(bound) else low + (bound - low) * inside
                break
            low, below = bound, count
    return found


# Its picture.


def panel(spec: dict[str, Any], scrapes: list[Scrape]) -> str:
    """Return one panel, in its own coordinates."""
    lines: dict[str, list[float | None]] = {}
    for target in spec["targets"]:
        for at in range(len(scrapes)):
            for labels, value in answered(target["expr"], scrapes, at).items():
                known = dict(labels)
                legend = target["legendFormat"]
                for name in re.findall(r"\{\{(\w+)\}\}", legend):
                    legend = legend.replace(f"{{{{{name}}}}}", known.get(name, ""))
                legend = " ".join(legend.replace("orders", "", 1).split())
                lines.setdefault(legend, [None] * len(scrapes))[at] = value
    shown = {name: values for name, values in lines.items() if any(values)}
    most = max([value for values in shown.values() for value in values if value] or [0.0])
    unit = spec.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
    parts = [f'<text class="title" x="8" y="18">{escape(spec["title"])}</text>']
    left, top, width, height = 46, 30, WIDTH - 64, 76
    for y, value in ((top, most), (top + height, 0.0)):
        parts.append(f'<line class="tick" x1="{left}" x2="{left + width}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="end" x="{left - 5}" y="{y + 4}">{amount(value, unit)}</text>')
    for number, (name, values) in enumerate(sorted(shown.items())[:3]):
        colour = COLOURS[number % len(COLOURS)]
        points = [
            f"{left + width * at / (len(values) - 1):.1f},{top + height * (1 - value / most):.1f}"
            for at, value in enumerate(values)
            if value is not None
        ]
        parts.append(f'<polyline points="{" ".join(points)}" stroke="{colour}"/>')
        y = top + height + 18 + 14 * number
        parts.append(f'<rect x="{left}" y="{y - 9}" width="9" height="9" fill="{colour}"/>')
        parts.append(f'<text class="small" x="{left + 14}" y="{y}">{escape(name)}</text>')
    if not shown:
        parts.append(f'<text class="small" x="{left + 8}" y="{top + 42}">nothing happened</text>')
    return "".join(parts)


def amount(value: float, unit: str) -> str:
    """Return a value as short as a panel shows it."""
    if unit == "percentunit":
        return f"{value:.0%}"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}{' s' if unit == 's' else '/s' if unit == 'cps' else ''}"


def picture() -> str:
    """Return the picture of all panels."""
    registry = CollectorRegistry()
    scrapes = run(quarter_of_an_hour(registry))
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
    parts: list[str] = []
    y, column = 6, 0
    for spec in dashboard["panels"]:
        if spec["type"] == "row":
            y, column = y + (HEIGHT if column else 0), 0
            parts.append(f'<text class="row" x="8" y="{y + 20}">{escape(spec["title"])}</text>')
            y += 30
            continue
        if column == COLUMNS:
            y, column = y + HEIGHT, 0
        place = f"translate({column * WIDTH}, {y})"
        frame = (
            f'<rect class="panel" x="3" y="3" width="{WIDTH - 6}" height="{HEIGHT - 6}" rx="4"/>'
        )
        parts.append(f'<g transform="{place}">{frame}{panel(spec, scrapes)}</g>')
        column += 1
    y += HEIGHT + 6
    style = (
        "text{font:12px system-ui,sans-serif;fill:#1f2328}.row{font-size:15px;font-weight:600}"
        ".title{font-weight:600}.small{font-size:11px;fill:#59636e}"
        ".end{font-size:10px;fill:#59636e;text-anchor:end}.tick{stroke:#d1d9e0}"
        ".panel{fill:#fff;stroke:#d1d9e0}polyline{fill:none;stroke-width:1.6}"
    )
    size = f'viewBox="0 0 {COLUMNS * WIDTH} {y}"'
    body = "\n".join(parts)
    return (
        f'<svg {size} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>\n'
        f'<rect width="100%" height="100%" fill="#f6f8fa"/>\n{body}\n</svg>\n'
    )


def main() -> None:
    """Write the picture."""
    HERE.mkdir(exist_ok=True)
    _ = (HERE / "dashboard.svg").write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
