"""The metrics as Prometheus reads them: all there from the start, no series that somebody made up."""

from __future__ import annotations

import math
import threading
from itertools import product

import pytest
from prometheus_client.parser import text_string_to_metric_families

from interlock.adapters.prometheus import VALUES_MAX, PrometheusMeter
from interlock.core.meter import OTHER, Metric
from interlock.engine.metrics import ASKS, DECISIONS_BY_POLICY, METRICS, QUEUE, STEP_SECONDS

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series(meter: PrometheusMeter) -> Series:
    """(name, labels) -> value of every sample."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(meter.exposition())
        for sample in family.samples
    }


def value(meter: PrometheusMeter, name: str, **labels: str) -> float:
    return series(meter)[name, frozenset(labels.items())]


def made() -> PrometheusMeter:
    meter = PrometheusMeter(METRICS)
    for label, values in {"action": ("a.b", "c.d"), "policy": ("p",), "method": ("m",), "work": ("w",)}.items():
        meter.know(label, values)
    return meter


KNOWN = {"action": ("a.b", "c.d", OTHER), "policy": ("p", OTHER), "method": ("m", OTHER), "work": ("w", OTHER)}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_series_stands_at_zero_from_the_start(metric: Metric) -> None:
    found = series(made())
    values = [each or KNOWN.get(name, (OTHER,)) for name, each in metric.labels.items()]
    name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
    for labels in product(*values):
        assert found[name, frozenset(zip(metric.labels, labels, strict=True))] == 0


def test_names_are_as_prometheus_wants_them() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS) > 50
    for metric in METRICS:
        assert metric.name.startswith("interlock_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
        assert (metric.kind == "histogram") <= metric.name.endswith("_seconds")


def test_what_is_told_is_counted_where_it_belongs() -> None:
    meter = made()
    meter.count(ASKS, "a.b", "succeeded")
    meter.count(ASKS, "a.b", "succeeded", by=2)
    meter.observe(STEP_SECONDS, 0.2, "c.d")
    meter.set(QUEUE, 7)
    assert value(meter, "interlock_asks_total", action="a.b", outcome="succeeded") == 3
    assert value(meter, "interlock_asks_total", action="c.d", outcome="succeeded") == 0
    assert value(meter, "interlock_step_seconds_sum", action="c.d") == 0.2
    assert value(meter, "interlock_step_seconds_bucket", action="c.d", le="0.25") == 1
    assert value(meter, "interlock_step_seconds_bucket", action="c.d", le="0.1") == 0
    assert value(meter, "interlock_queue_runs") == 7


def test_names_that_somebody_made_up_are_one_series() -> None:
    meter = made()
    before = len(series(meter))
    for number in range(1000):
        meter.count(ASKS, f'evil"\n{number}', "not_found")
    assert len(series(meter)) == before
    assert value(meter, "interlock_asks_total", action=OTHER, outcome="not_found") == 1000


def test_a_policy_that_comes_later_stands_at_zero_and_there_are_never_too_many() -> None:
    meter = made()
    meter.know("policy", ("later",))
    assert value(meter, "interlock_decisions_by_policy_total", policy="later", outcome="permit") == 0
    meter.know("policy", (f"p{number}" for number in range(10 * VALUES_MAX)))
    assert len([name for name, _ in series(meter) if name == "interlock_decisions_by_policy_total"]) == 3 * (
        VALUES_MAX + 1
    )
    meter.count(DECISIONS_BY_POLICY, f"p{10 * VALUES_MAX - 1}", "permit")
    assert value(meter, "interlock_decisions_by_policy_total", policy=OTHER, outcome="permit") == 1


def test_threads_lose_no_count() -> None:
    meter = made()

    def work() -> None:
        for _ in range(2000):
            meter.count(ASKS, "a.b", "denied")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        meter.know("action", (f"x{threading.get_ident()}",))
        assert not math.isnan(value(meter, "interlock_asks_total", action="a.b", outcome="denied"))
    assert value(meter, "interlock_asks_total", action="a.b", outcome="denied") == 8000


def test_the_process_itself_is_told_of() -> None:
    names = {name for name, _ in series(made())}
    assert {"process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds"} <= names
