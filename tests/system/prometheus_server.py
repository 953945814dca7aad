"""A real Prometheus beside a deployment: scrapes it, records its rules, answers queries."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import require
from tests.ports import free_ports
from tests.system.harness import wait_until

RULES = Path(__file__).resolve().parents[2] / "deploy/prometheus"


class QueryFailed(Exception):
    """Prometheus refused an expression; the text is its own."""


class PrometheusServer:
    """``targets``: job to addresses. The rules are those of ``deploy/prometheus``; all is done every ``step_s``."""

    def __init__(self, folder: Path, targets: Mapping[str, Sequence[str]], step_s: float = 1.0) -> None:
        self._folder = folder / "prometheus"
        self._folder.mkdir()
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        step = f"{round(step_s * 1000)}ms"
        config = {
            "global": {"scrape_interval": step, "scrape_timeout": step, "evaluation_interval": step},
            "rule_files": [str(RULES / name) for name in ("recording.yml", "slo.yml", "alerts.yml")],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
                for job, addresses in targets.items()
            ],
        }
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> PrometheusServer:
        binary = shutil.which("prometheus")
        require(binary, "Prometheus is not installed (Debian: prometheus)")
        assert binary is not None
        command = [binary, f"--config.file={self._folder / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={self._folder / 'data'}", f"--web.listen-address={self.url[7:]}"]
        command += ["--log.level=warn"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._is_ready, 20, f"Prometheus: {(self._folder / 'log').read_text()}")
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def query(self, expression: str, at_s: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Every series of an instant query that has a value, NaN left out. Raises QueryFailed."""
        parameters = {"query": expression} | ({} if at_s is None else {"time": str(at_s)})
        found = self._get("query", parameters)["result"]
        if isinstance(found, list) and len(found) == 2 and not isinstance(found[0], dict):  # a scalar
            return [({}, float(found[1]))]
        values = [(row["metric"], float(row["value"][1])) for row in found]
        return [(labels, value) for labels, value in values if not math.isnan(value)]

    def query_range(
        self, expression: str, start_s: float, end_s: float, step_s: float
    ) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Every series of a range query as ``(labels, [(time, value), …])``. Raises QueryFailed."""
        parameters = {"query": expression, "start": str(start_s), "end": str(end_s), "step": str(step_s)}
        found = self._get("query_range", parameters)["result"]
        return [(row["metric"], [(float(at), float(value)) for at, value in row["values"]]) for row in found]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule as Prometheus sees it: ``health``, ``lastError``, ``query``, ``name``, ``type``."""
        return [rule for group in self._get("rules", {})["groups"] for rule in group["rules"]]

    def true_alerts(self) -> set[str]:
        """The alerts whose expression was true when it was evaluated last, however long it has been."""
        return {rule["name"] for rule in self.rules() if rule["type"] == "alerting" and rule["state"] != "inactive"}

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise QueryFailed(f"{parameters.get('query')}: {json.load(error)['error']}") from None
