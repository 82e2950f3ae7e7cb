"""Counts -> the Prometheus text format. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """name without the prefix, and without the _total of a counter; samples: (labels, value)."""

    name: str
    kind: Literal["counter", "gauge"]
    about: str
    samples: Sequence[tuple[Labels, float]]


def render(metrics: Sequence[Metric]) -> str:
    lines: list[str] = []
    for metric in metrics:
        name = f"spoorway_{metric.name}" + ("_total" if metric.kind == "counter" else "")
        lines += [f"# HELP {name} {metric.about}", f"# TYPE {name} {metric.kind}"]
        for labels, value in metric.samples:
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            lines.append(f"{name}{{{inside}}} {value}" if inside else f"{name} {value}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
