"""A run's figures as OpenMetrics text, which node_exporter's textfile collector and Prometheus read.

Names and units follow https://prometheus.io/docs/specs/om/open_metrics_spec/ ; pipelines/alerts.yml holds alerts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Sample = tuple[Mapping[str, object], float]

STATES = ("running", "finished", "stopped", "failed")
_COUNTERS = {
    "bytes_read": ("curate_read_bytes", "bytes that came over the network"),
    "requests": ("curate_requests", "requests made"),
    "cpu_seconds": ("curate_cpu_seconds", "CPU time of workers and their children"),
    "gpu_seconds": ("curate_gpu_seconds", "time in which GPUs computed"),
    "images": ("curate_images", "images stored by a fetch, or decoded by a score"),
}


def text(document: Mapping[str, Any], pool: str, free_bytes: int) -> str:
    """The status document as text, each figure labelled with the pool's name and the run's first word."""
    base = {"pool": pool, "run": document["what"]}
    lines = list(_run(document, base, free_bytes))
    for name, help_text, kind, samples in _tasks(document["tasks"], base):
        lines += _family(name, help_text, kind, samples)
    return "\n".join([*lines, "# EOF", ""])


def _run(document: Mapping[str, Any], base: Mapping[str, object], free_bytes: int) -> Iterator[str]:
    yield from _family(
        "curate_run_state", "1 for the state in which the run is", "gauge",
        [({**base, "state": state}, float(document["state"] == state)) for state in STATES],
    )  # fmt: skip
    yield from _family("curate_run_heard_timestamp_seconds", "when the driver last wrote this", "gauge", [(base, document["heard"])])
    yield from _family("curate_run_begun_timestamp_seconds", "when the run began", "gauge", [(base, document["begun"])])
    yield from _family("curate_pool_free_bytes", "room on the disk that holds the pool", "gauge", [(base, free_bytes)])


def _tasks(tasks: list[dict[str, Any]], base: Mapping[str, object]) -> Iterator[tuple[str, str, str, list[Sample]]]:
    labelled = [({**base, "task": task["name"], "unit": task["unit"]}, task) for task in tasks]
    done: list[Sample] = [(labels, float(task["done"])) for labels, task in labelled]
    yield "curate_task_done", "units of a task that are done", "gauge", done
    wanted: list[Sample] = [(labels, float(task["total"])) for labels, task in labelled if task["total"] is not None]
    yield "curate_task_wanted", "units of a task in all", "gauge", wanted
    rates: list[Sample] = [(labels, task["rate"]) for labels, task in labelled]
    yield "curate_task_rate", "units a second, of about the last minute", "gauge", rates
    elapsed: list[Sample] = [(labels, task["seconds"]) for labels, task in labelled]
    yield "curate_task_elapsed_seconds", "since the task began", "gauge", elapsed
    rows: list[Sample] = [
        ({**base, "task": task["name"], "reason": reason}, float(count))
        for task in tasks
        for reason, count in sorted(task["reasons"].items())
    ]
    yield "curate_rows", "rows by what became of them; a later pass takes rows back from deferred_politeness", "gauge", rows
    for counter, (name, help_text) in _COUNTERS.items():
        found: list[Sample] = [
            ({**base, "task": task["name"]}, float(task["counters"][counter])) for task in tasks if counter in task["counters"]
        ]
        yield name, help_text, "counter", found


def _family(name: str, help_text: str, kind: str, samples: list[Sample]) -> list[str]:
    if not samples:
        return []
    suffix = "_total" if kind == "counter" else ""
    lines = [f"# TYPE {name} {kind}", f"# HELP {name} {help_text}"]
    return lines + [f"{name}{suffix}{{{_labels(labels)}}} {value!r}" for labels, value in samples]


def _labels(labels: Mapping[str, object]) -> str:
    return ",".join(f'{key}="{_escaped(str(value))}"' for key, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
