"""The files of deploy/ and grafana/ hold together: nothing that is named is missing, nothing secret is written down."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from pushserver.errors import SettingsError
from pushserver.settings import Settings
from tests.conftest import require

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
UNITS = ("pushserver-web.service", "pushserver-worker@.service")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content = load(DEPLOY / "compose.yml")
    assert isinstance(content, dict)
    return content


def example_environment(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_every_yaml_file_can_be_read() -> None:
    files = [*DEPLOY.rglob("*.yml"), *(ROOT / "grafana").rglob("*.yml")]
    assert len(files) >= 4
    for file in files:
        assert isinstance(load(file), dict), file


def test_compose_has_every_part_of_the_system(compose: dict[str, Any]) -> None:
    expected = {"web", "worker", "nginx", "valkey", "postgres", "prometheus", "grafana"}
    assert expected <= set(compose["services"])
    assert compose["services"]["worker"]["deploy"]["replicas"] >= 2


def test_compose_names_only_networks_volumes_and_services_it_declares(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert set(service["networks"]) <= set(compose["networks"]), name
        assert set(service.get("depends_on", {})) <= set(compose["services"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name}: {source}"
            elif not source.startswith("$"):
                assert source in compose["volumes"], f"{name}: {source}"


def test_who_waits_for_health_waits_for_a_service_that_checks_it(compose: dict[str, Any]) -> None:
    waits = 0
    for service in compose["services"].values():
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in compose["services"][other]
            waits += 1
    assert waits >= 5


def test_web_and_workers_are_started_as_documented(compose: dict[str, Any]) -> None:
    web = " ".join(compose["services"]["web"]["command"])
    assert web == "gunicorn -k geventwebsocket -w ${WEB_CONCURRENCY:-4} -b 0.0.0.0:5000 wsgi:app"
    assert compose["services"]["worker"]["command"] == ["python", "-m", "pushserver.workers"]
    assert "/readyz" in compose["services"]["web"]["healthcheck"]["test"][-1]
    assert ":9102/healthz" in compose["services"]["worker"]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", ["web", "worker"])
def test_program_containers_hold_no_rights_they_do_not_need(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["shm_size"], "metric files live in /dev/shm"


def test_I09_only_the_edge_listens_to_the_outside(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert name == "nginx" or port.startswith("127.0.0.1:"), f"{name} publishes {port}"
    assert compose["networks"]["data"] == {"internal": True}
    assert compose["services"]["valkey"]["networks"] == ["data"]
    assert compose["services"]["postgres"]["networks"] == ["data"]


def test_B03_the_web_side_believes_nginx_and_nobody_else(compose: dict[str, Any]) -> None:
    trusted = compose["services"]["web"]["environment"]["TRUSTED_PROXIES"]
    address = compose["services"]["nginx"]["networks"]["front"]["ipv4_address"]
    assert trusted == f"${{TRUSTED_PROXIES:-{address}}}"
    assert example_environment(DEPLOY / "env.example")["TRUSTED_PROXIES"] == address
    pool = compose["networks"]["front"]["ipam"]["config"][0]
    assert ip_address(address) in ip_network(pool["subnet"])
    assert ip_address(address) not in ip_network(pool["ip_range"]), "another container could be given it"
    assert example_environment(DEPLOY / "systemd" / "env.example")["TRUSTED_PROXIES"] == "127.0.0.1"


def required_variables(text: str) -> Iterator[str]:
    yield from re.findall(r"\$\{(\w+):\?", text)


def test_the_example_lists_every_variable_that_compose_demands() -> None:
    demanded = set(required_variables((DEPLOY / "compose.yml").read_text(encoding="utf-8")))
    assert len(demanded) >= 7
    assert demanded <= set(example_environment(DEPLOY / "env.example"))


def test_compose_writes_no_secret_down(compose: dict[str, Any]) -> None:
    """Every secret is demanded from the environment: with none set nothing starts."""
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEYS", variable):
                assert re.fullmatch(r"\$\{\w+:\?.*\}", str(value)), f"{name}: {variable}"


@pytest.mark.parametrize("path", ["env.example", "systemd/env.example"])
def test_the_settings_refuse_the_values_of_the_examples(path: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(example_environment(DEPLOY / path))
    problems = "\n".join(refused.value.problems)
    assert "JWT_SECRETS" in problems
    assert "CREDENTIALS_KEYS" in problems


def test_the_filled_in_folder_stays_out_of_git() -> None:
    assert "/deploy/env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_image_runs_as_an_ordinary_user_and_gets_signals() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    stages = [number for number, line in enumerate(lines) if line.startswith("FROM ")]
    assert len(stages) == 2
    final = lines[stages[-1] :]
    assert "USER 10001" in final
    assert final[-1] == 'CMD ["gunicorn", "-k", "geventwebsocket", "-w", "4", "-b", "0.0.0.0:5000", "wsgi:app"]'
    assert any(line.startswith("HEALTHCHECK") for line in final)
    assert not any(re.search(r"SECRET|PASSWORD|KEYS", line) for line in lines)
    copied = [line.split()[1:-1] for line in final if line.startswith("COPY ") and "--from" not in line]
    for source in (name for names in copied for name in names):
        assert (ROOT / source).exists(), source


def test_the_image_gets_nothing_but_the_program() -> None:
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert "*" in rules
    assert allowed == {"requirements.txt", "wsgi.py", "gunicorn.conf.py", "pushserver"}


def directives(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def test_units_start_what_production_starts() -> None:
    web, worker = (directives(DEPLOY / "systemd" / unit) for unit in UNITS)
    assert web["ExecStart"][0].endswith("gunicorn -k geventwebsocket -w 4 -b 127.0.0.1:5000 wsgi:app")
    assert worker["ExecStart"][0].endswith("python -m pushserver.workers")
    assert "WORKER_METRICS_BIND=127.0.0.1:911%i" in worker["ExecStart"][0]


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_hardened(unit: str) -> None:
    found = directives(DEPLOY / "systemd" / unit)
    for name in (
        "NoNewPrivileges", "ProtectHome", "ProtectKernelTunables", "ProtectKernelModules", "ProtectControlGroups",
        "PrivateTmp", "PrivateDevices", "RestrictNamespaces", "RestrictSUIDSGID", "LockPersonality",
    ):  # fmt: skip
        assert found[name] == ["yes"], name
    assert found["ProtectSystem"] == ["strict"]
    assert found["CapabilityBoundingSet"] == [""]
    assert found["SystemCallFilter"] == ["@system-service"]
    assert found["User"] == ["pushserver"]
    assert found["RestartPreventExitStatus"] == ["2"], "wrong settings are not tried again"


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_unit(unit: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    require(analyze, "systemd-analyze (Debian: systemd)")
    assert analyze is not None
    programs = tmp_path / "opt" / ".venv" / "bin"
    programs.mkdir(parents=True)
    for program in ("gunicorn", "python"):
        (programs / program).write_text("#!/bin/sh\n", encoding="utf-8")
        (programs / program).chmod(0o755)
    text = (DEPLOY / "systemd" / unit).read_text(encoding="utf-8")
    copy = tmp_path / unit.replace("@.", "@1.")
    copy.write_text(text.replace("/opt/pushserver", str(tmp_path / "opt")), encoding="utf-8")
    result = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in result.stderr.splitlines() if "pushserver" in line]
    assert complaints == []


def test_prometheus_scrapes_every_process_where_it_serves_metrics(compose: dict[str, Any]) -> None:
    jobs = {job["job_name"]: job for job in load(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]}
    assert jobs["pushserver-web"]["dns_sd_configs"][0] == {
        "names": ["web"], "type": "A", "port": 9101, "refresh_interval": "10s",
    }  # fmt: skip
    assert jobs["pushserver-worker"]["dns_sd_configs"][0]["names"] == ["worker"]
    assert jobs["pushserver-worker"]["dns_sd_configs"][0]["port"] == 9102
    image = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert "WEB_METRICS_BIND=0.0.0.0:9101" in image
    assert "WORKER_METRICS_BIND=0.0.0.0:9102" in image
    shared = set(compose["services"]["prometheus"]["networks"])
    assert shared & set(compose["services"]["web"]["networks"])
    assert shared & set(compose["services"]["worker"]["networks"])


def test_grafana_finds_its_data_and_its_dashboards(compose: dict[str, Any]) -> None:
    provisioning = ROOT / "grafana" / "provisioning"
    source = load(provisioning / "datasources" / "prometheus.yml")["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    assert source["uid"] == "prometheus"
    provider = load(provisioning / "dashboards" / "pushserver.yml")["providers"][0]
    mounted = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
