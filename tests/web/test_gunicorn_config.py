"""gunicorn with the repository's configuration: how it starts, refuses to start, reloads, loses workers and ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.system.harness import ROOT, free_port, wait_until
from tests.web.gunicorns import Gunicorn, environment

GUNICORN = str(Path(sys.executable).with_name("gunicorn"))
OPEN = "push_connections_open"
STARTED = 'push_connections_opened_total{carrier="payload"}'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Gunicorn]:
    gunicorn = Gunicorn(tmp_path, workers=2)
    yield gunicorn
    gunicorn.process.stop()


def run_gunicorn(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [GUNICORN, *arguments], cwd=ROOT, env=environment(**environ), capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip


def effective_settings(*arguments: str, **environ: str) -> dict[str, str]:
    done = run_gunicorn("--print-config", *arguments, "tests.web.trivial_app:app", **environ)
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^(\w+)\s+= (.*)$", done.stdout, re.MULTILINE))


def metrics_directory(server: Gunicorn) -> Path:
    """Where the workers' memory-mapped metric files are."""
    mapped = {Path(file.path).parent for pid in server.workers() for file in psutil.Process(pid).memory_maps()}
    (directory,) = {path for path in mapped if path.name.startswith("pushserver-metrics-")}
    return directory


def test_a_wrong_environment_ends_gunicorn_with_code_2_and_a_line_per_problem() -> None:
    done = run_gunicorn("wsgi:app", JWT_SECRETS="short", BIND="nowhere", LOG_FORMAT="xml")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert {line.split(":")[0].split(" ")[0] for line in lines} == {"JWT_SECRETS", "BIND", "LOG_FORMAT"}
    assert "short" not in done.stderr


def test_tls_at_gunicorn_is_refused_and_not_served_in_plain_text() -> None:
    result = run_gunicorn("--certfile", "some.pem", "wsgi:app", BIND=f"127.0.0.1:{free_port()}")
    assert result.returncode == 2
    assert "let a proxy end TLS" in result.stderr


def test_settings_come_from_the_environment_and_the_command_line_goes_before_them() -> None:
    settings = effective_settings(BIND="127.0.0.1:7001", WEB_CONCURRENCY="3", LOG_LEVEL="warning")
    assert settings["bind"] == "['127.0.0.1:7001']"
    assert (settings["workers"], settings["loglevel"]) == ("3", "warning")
    assert settings["worker_class"] == "geventwebsocket"
    settings = effective_settings("-b", "127.0.0.1:7002", "-w", "4", BIND="127.0.0.1:7001")
    assert (settings["bind"], settings["workers"]) == ("['127.0.0.1:7002']", "4")


def test_E08_a_worker_has_time_to_drain_and_the_deployments_wait_for_it() -> None:
    assert effective_settings(DRAIN_S="3")["graceful_timeout"] == "18"
    patience_s = int(effective_settings()["graceful_timeout"])
    assert patience_s == 25
    unit = (ROOT / "deploy/systemd/pushserver-web.service").read_text()
    compose = (ROOT / "deploy/compose.yml").read_text()
    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) >= patience_s + 2
    assert min(int(seconds) for seconds in re.findall(r"stop_grace_period: (\d+)s", compose)) >= patience_s + 2


def test_I09_the_control_socket_and_the_access_log_are_off() -> None:
    settings = effective_settings()
    assert (settings["control_socket_disable"], settings["accesslog"]) == ("True", "None")


def test_the_master_imports_nothing_of_the_program_that_serves() -> None:
    script = (
        "import runpy, sys, json; runpy.run_path('gunicorn.conf.py');"
        "import pushserver.web.gunicorn_worker; import gevent.monkey;"
        "print(json.dumps([sorted(sys.modules), gevent.monkey.is_module_patched('socket')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
        timeout=30,
    )  # fmt: skip
    modules, patched = json.loads(done.stdout)
    assert not patched
    assert not {"flask", "socketio", "redis", "sqlalchemy", "prometheus_client", "pushserver.web.app"} & set(modules)


def test_the_whole_of_both_workers_is_on_one_metrics_page(server: Gunicorn) -> None:
    wait_until(lambda: server.metric(OPEN) == 2, 5, "both workers' figures")
    assert server.metric("push_processes") == 2
    assert server.metric(STARTED) == 2
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port()}/", timeout=5)


def test_B09_metrics_are_not_on_the_public_port(server: Gunicorn) -> None:
    answer = server.ask(b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert b"# TYPE" not in answer


def test_a_killed_workers_connections_no_longer_count_and_its_work_still_does(server: Gunicorn) -> None:
    wait_until(lambda: server.metric(OPEN) == 2, 5, "both workers' figures")
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in server.workers() and len(server.workers()) == 2, 10, "a new worker")
    wait_until(lambda: server.metric(STARTED) == 3, 10, "the new worker's figures")
    assert server.metric(OPEN) == 2


def test_a_reload_replaces_the_workers_and_keeps_page_and_counts(server: Gunicorn) -> None:
    wait_until(lambda: server.metric(STARTED) == 2, 5, "both workers' figures")
    port, before = server.metrics_port(), set(server.workers())
    os.kill(server.process.pid, signal.SIGHUP)
    wait_until(lambda: len(server.workers()) == 2 and not before & set(server.workers()), 15, "new workers")
    wait_until(lambda: server.metric(STARTED) == 4, 5, "all workers' figures")
    assert server.metrics_port() == port
    assert server.metric(OPEN) == 2


def test_a_reload_brings_the_programs_new_code_whole(tmp_path: Path) -> None:
    # The master has imported parts of the package; a worker that inherited them would mix old code with new.
    package = tmp_path / "tree"
    package.mkdir()
    for name in ("pushserver", "gunicorn.conf.py", "tests"):
        (package / name).symlink_to(ROOT / name)
    (package / "pushserver").unlink()
    subprocess.run(["cp", "-r", str(ROOT / "pushserver"), str(package / "pushserver")], check=True)
    app = package / "fresh.py"
    app.write_text(
        "from pushserver import model\n"
        "def app(environ, start):\n"
        "    start('200 OK', [])\n"
        "    return [getattr(model, 'GENERATION', 'first').encode()]\n"
    )
    port = free_port()
    process = subprocess.Popen(
        [GUNICORN, "-w", "1", "-b", f"127.0.0.1:{port}", "fresh:app"],
        cwd=package, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def generation() -> str:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
            return answer.read().decode()
        return ""

    try:
        wait_until(lambda: generation() == "first", 15, "the first generation")
        model = package / "pushserver" / "model.py"
        model.write_text(model.read_text() + "\nGENERATION = 'second'\n")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: generation() == "second", 15, "the second generation")
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_B02_G01_what_is_unwise_is_said_once_at_the_start(tmp_path: Path) -> None:
    server = Gunicorn(tmp_path, workers=2, CORS_ORIGINS="*", REDIS_URL="rediss://valkey.example:6379/0")
    server.process.stop()
    warnings = [line for line in server.log().splitlines() if "CORS_ORIGINS is *" in line or "no password" in line]
    assert len(warnings) == 2
    assert all("WARN" in line for line in warnings)


def test_stopping_leaves_no_process_no_file_and_code_0(tmp_path: Path) -> None:
    server = Gunicorn(tmp_path, workers=2)
    workers, directory = server.workers(), metrics_directory(server)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert server.process.stop() == 0
    assert not directory.exists()
    assert not any(psutil.pid_exists(pid) for pid in workers)


def test_when_the_master_is_killed_everything_goes_and_the_next_start_cleans_up(tmp_path: Path) -> None:
    server = Gunicorn(tmp_path, workers=2)
    metrics_port, workers, left = server.metrics_port(), server.workers(), metrics_directory(server)
    server.process.kill()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in workers), 5, "the workers to leave")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", metrics_port))
    (tmp_path / "second").mkdir()
    assert left.exists()
    second = Gunicorn(tmp_path / "second")
    try:
        assert not left.exists()
    finally:
        second.process.stop()


def test_a_busy_metrics_port_is_told_and_taken_when_it_is_free(tmp_path: Path) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        server = Gunicorn(tmp_path, WEB_METRICS_BIND=f"127.0.0.1:{port}")
        assert f"ERROR metrics_endpoint metrics address 127.0.0.1:{port} cannot be had" in server.log()
    try:
        wait_until(lambda: "metrics on http" in server.log(), 10, "the port to be taken")
        assert server.metric("push_processes") == 1
    finally:
        assert server.process.stop() == 0


def test_gunicorns_own_lines_have_our_format(tmp_path: Path) -> None:
    server = Gunicorn(tmp_path, LOG_FORMAT="json")
    assert server.process.stop() == 0
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    assert "Booting worker with pid: %d" not in {line["message"] for line in lines}
    assert any(line["logger"] == "gunicorn.error" and "Listening at" in line["message"] for line in lines)
