"""PromQL as the panels need it: every selector is bound to the dashboard's job and instance."""

from __future__ import annotations

SCOPE = 'job=~"$job", instance=~"$instance"'
WINDOW = "[$__rate_interval]"
#: The time that is shown on the screen.
SHOWN = "[$__range]"


def series(name: str, **labels: str) -> str:
    """``push_<name>{…}``. A label's value is a regular expression if it begins with ``~``."""
    matchers = [
        f'{label}=~"{value[1:]}"' if value.startswith("~") else f'{label}="{value}"' for label, value in labels.items()
    ]
    return f"push_{name}{{{', '.join([SCOPE, *matchers])}}}"


def per_second(name: str, *by: str, **labels: str) -> str:
    """Increase of a counter per second, summed over everything but ``by``."""
    return f"sum{_by(by)} (rate({series(name, **labels)}{WINDOW}))"


def while_shown(name: str, *by: str, **labels: str) -> str:
    """Increase of a counter during the time on the screen."""
    return f"sum{_by(by)} (increase({series(name, **labels)}{SHOWN}))"


def total(name: str, *by: str, **labels: str) -> str:
    return f"sum{_by(by)} ({series(name, **labels)})"


def largest(name: str, *by: str, **labels: str) -> str:
    return f"max{_by(by)} ({series(name, **labels)})"


def smallest(name: str, *by: str, **labels: str) -> str:
    return f"min{_by(by)} ({series(name, **labels)})"


def quantile(share: float, name: str, *by: str, **labels: str) -> str:
    """Of a histogram."""
    rates = f"sum by ({', '.join(('le', *by))}) (rate({series(f'{name}_bucket', **labels)}{WINDOW}))"
    return f"histogram_quantile({share:g}, {rates})"


def within(edge: str, name: str) -> str:
    """The share of a histogram's observations, during the time on the screen, that were not above ``edge``."""
    return f"{while_shown(f'{name}_bucket', le=edge)} / {while_shown(f'{name}_count')}"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
