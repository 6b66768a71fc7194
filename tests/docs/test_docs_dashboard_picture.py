"""The picture of docs/metrics.md has what the queries of the dashboard answer today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")

from draw_dashboard import DOCS, HERE, Scrape, answered, main

PICTURE = Path(HERE) / "dashboard.svg"


@pytest.mark.slow
def test_the_picture_is_drawn_by_the_run_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("draw_dashboard.HERE", tmp_path)
    main()
    drawn = (tmp_path / "dashboard.svg").read_text(encoding="utf-8")
    assert drawn == PICTURE.read_text(encoding="utf-8"), "run docs/draw_dashboard.py"


def test_the_picture_has_every_panel_and_is_on_the_page() -> None:
    text = PICTURE.read_text(encoding="utf-8")
    dashboard = json.loads((Path(DOCS) / "grafana-dashboard.json").read_text(encoding="utf-8"))
    assert all(f">{panel['title']}</text>" in text for panel in dashboard["panels"])
    assert "live/dashboard.svg)" in (Path(DOCS) / "metrics.md").read_text(encoding="utf-8")


def test_queries_are_answered() -> None:
    a, b = (("stage", "a"), ("x", "1")), (("stage", "a"), ("x", "2"))
    scrapes: list[Scrape] = [{"n": {a: 15.0 * k, b: 30.0 * k}} for k in range(6)]
    rate = 'sum by (stage) (rate(n{x=~"$x"}[5m]))'
    assert answered(rate, scrapes, 5) == {(("stage", "a"),): 3.0}
    assert answered('max by (stage) (n{x!="2"})', scrapes, 5) == {(("stage", "a"),): 75.0}
    assert answered(f"{rate} / {rate}", scrapes, 5) == {(("stage", "a"),): 1.0}
    buckets: Scrape = {
        "b": {(("le", "1"),): 2.0, (("le", "3"),): 4.0, (("le", "+Inf"),): 4.0},
    }
    quantile = 'histogram_quantile(0.75, sum by (le) (b{x=~"$x"}))'
    assert answered(quantile, [buckets], 0) == {(): 2.0}
