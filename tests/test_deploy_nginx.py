"""The nginx configuration of deploy/, run by a real nginx in front of a small server that shows what reaches it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pushserver.clock import SystemClock
from tests.conftest import require
from tests.ports import free_ports
from tests.system.harness import wait_until

CONFIGURATION = Path(__file__).resolve().parent.parent / "deploy" / "nginx" / "nginx.conf"


def nginx_binary() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    require(found, "nginx (Debian: nginx-light)")
    assert found is not None
    return found


def write_certificate(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=36_500))
        .sign(key, hashes.SHA256())
    )
    (directory / "fullchain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "privkey.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class Upstream(BaseHTTPRequestHandler):
    """Answers with the head it was sent; an upgrade is accepted, and what comes after it is echoed."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self.upgrade()
            return
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = json.dumps({"path": self.path, "headers": dict(self.headers.items())}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_GET

    def upgrade(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.wfile.write(self.connection.recv(100))
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Stay silent."""


@dataclass(frozen=True)
class Edge:
    http_port: int
    https_port: int
    log: Path

    def connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.https_port), timeout=15))

    def exchange(self, request: bytes) -> bytes:
        """Everything the server says to these bytes until it closes the connection."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_to_end(connection)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[HTTPResponse, bytes]:
        connection = HTTPSConnection("127.0.0.1", self.https_port, timeout=15, context=ssl._create_unverified_context())
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()


def read_to_end(connection: ssl.SSLSocket) -> bytes:
    received = b""
    while True:
        try:
            piece = connection.recv(65_536)
        except (ConnectionResetError, ssl.SSLError):
            return received
        if not piece:
            return received
        received += piece


def for_this_machine(directory: Path, upstream_port: int, http_port: int, https_port: int) -> Path:
    """The configuration with nothing changed but addresses, ports and file names."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    for old, new, times in (
        ("server web:5000", f"server 127.0.0.1:{upstream_port}", 1),
        ("/etc/nginx/tls/", f"{directory}/", 3),
        ("listen [::]:80 default_server;", "", 1),
        ("listen [::]:443 ssl default_server;", "", 1),
        ("listen 80 default", f"listen 127.0.0.1:{http_port} default", 1),
        ("listen 443 ssl", f"listen 127.0.0.1:{https_port} ssl", 1),
        ("access_log /dev/stdout", f"access_log {directory}/access.log", 1),
        ("error_log /dev/stderr", f"error_log {directory}/error.log", 1),
        ("pid /run/nginx.pid", f"pid {directory}/nginx.pid", 1),
        ("worker_processes auto", "worker_processes 1", 1),
        ("worker_rlimit_nofile 65536;", "", 1),
        ("worker_connections 16384", "worker_connections 512", 1),
        ("http {", "http {\n" + temporary_paths(directory), 1),
    ):
        assert text.count(old) == times, old
        text = text.replace(old, new)
    path = directory / "nginx.conf"
    path.write_text(text, encoding="utf-8")
    return path


def temporary_paths(directory: Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"    {kind}_temp_path {directory}/{kind};\n" for kind in kinds)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    binary = nginx_binary()
    directory = tmp_path_factory.mktemp("nginx")
    directory.chmod(0o755)
    write_certificate(directory)
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    upstream.daemon_threads = True
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    running = Edge(*free_ports(2), log=directory / "access.log")
    configuration = for_this_machine(directory, upstream.server_port, running.http_port, running.https_port)
    options = ["-p", str(directory), "-c", str(configuration), "-g", "daemon off;"]
    process = subprocess.Popen([binary, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for_port(running.https_port, process)
        yield running
    finally:
        process.terminate()
        process.communicate(timeout=10)
        upstream.shutdown()
        upstream.server_close()


def wait_for_port(port: int, process: subprocess.Popen[str]) -> None:
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + 20
    while clock.monotonic_s() < deadline_s:
        assert process.poll() is None, process.communicate()[0]
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            clock.sleep(0.05)
    raise AssertionError("nginx did not listen in 20 s")


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    configuration = for_this_machine(tmp_path, 5000, 8080, 8443)
    result = subprocess.run(
        [nginx_binary(), "-t", "-p", str(tmp_path), "-c", str(configuration)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "warn" not in result.stderr


def test_a_request_reaches_the_web_worker(edge: Edge) -> None:
    response, body = edge.request("GET", "/healthz")
    assert response.status == 200
    assert json.loads(body)["path"] == "/healthz"


def test_plain_http_is_sent_to_tls(edge: Edge) -> None:
    with socket.create_connection(("127.0.0.1", edge.http_port), timeout=5) as connection:
        connection.sendall(b"GET /x?y=1 HTTP/1.1\r\nHost: push.example.com\r\nConnection: close\r\n\r\n")
        answer = connection.recv(4096)
    assert status_of(answer) == 308
    assert b"Location: https://push.example.com/x?y=1\r\n" in answer


def test_a_websocket_is_upgraded_and_carries_bytes_both_ways(edge: Edge) -> None:
    with edge.connect() as connection:
        connection.sendall(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: push.example.com\r\n"
            b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = connection.recv(4096)
        assert status_of(answer) == 101
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
        connection.sendall(b"\x81\x05hello")
        assert connection.recv(100) == b"\x81\x05hello"


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/METRICS", "//metrics", "/x/../metrics", "/%6detrics"])
def test_B09_I09_metrics_are_not_reachable_from_outside(edge: Edge, path: str) -> None:
    response, body = edge.request("GET", path)
    assert response.status == 404
    assert b"headers" not in body


@pytest.mark.parametrize("method", ["TRACE", "PATCH", "CONNECT", "PROPFIND"])
def test_B09_methods_nobody_serves_are_refused(edge: Edge, method: str) -> None:
    answer = edge.exchange(f"{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert status_of(answer) in (400, 403, 405)


def test_B03_what_a_client_claims_about_addresses_is_replaced(edge: Edge) -> None:
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Real-IP": "203.0.113.9", "X-Forwarded-Proto": "http"}
    _, body = edge.request("GET", "/api/x", headers={**forged, "Forwarded": "for=203.0.113.9", "Host": "a.example"})
    headers = json.loads(body)["headers"]
    assert headers["X-Forwarded-For"] == headers["X-Real-IP"] == "127.0.0.1"
    assert headers["X-Forwarded-Proto"] == "https"
    assert headers["Host"] == headers["X-Forwarded-Host"] == "a.example"
    assert "203.0.113.9" not in json.dumps(headers)


def test_B04_clients_that_do_not_go_on_are_cut_off(edge: Edge) -> None:
    begun = [
        b"",
        b"GET /socket",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A:",
        b"POST /api/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ]
    clock = SystemClock()
    begun_s = clock.monotonic_s()
    with ThreadPoolExecutor(len(begun)) as clients:
        answers = list(clients.map(edge.exchange, begun))
    assert clock.monotonic_s() - begun_s < 8
    assert {status_of(answer) for answer in answers} <= {0, 408}


@pytest.mark.parametrize(
    ("request_head", "statuses"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {414}),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"a" * 20_000 + b"\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 500) for n in range(60)), {400}),
        (b"GET / HTTP/1.1\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Nul: a\x00b\r\n\r\n", {400}),
    ],
)
def test_B05_a_head_that_is_too_big_or_broken_is_refused(edge: Edge, request_head: bytes, statuses: set[int]) -> None:
    assert status_of(edge.exchange(request_head)) in statuses


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Content-Length: +2\r\n",
    ],
)
def test_B06_two_readings_of_one_body_are_refused(edge: Edge, framing: bytes) -> None:
    answer = edge.exchange(b"POST /api/x HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n{}GET /second HTTP/1.1\r\n\r\n")
    assert status_of(answer) in (400, 501)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"/second" not in answer


def test_B08_a_body_over_64_kib_is_refused(edge: Edge) -> None:
    response, _ = edge.request("POST", "/api/x", body=b"x" * (64 * 1024))
    assert response.status == 200
    response, _ = edge.request("POST", "/api/x", body=b"x" * (64 * 1024 + 1))
    assert response.status == 413


def test_logins_of_one_address_are_limited(edge: Edge) -> None:
    statuses = [edge.request("POST", "/api/auth/login", body=b"{}")[0].status for _ in range(40)]
    assert statuses[0] == 200
    assert 429 in statuses


def test_B11_a_token_in_the_address_is_not_logged(edge: Edge) -> None:
    edge.request("GET", "/api/marker?token=secret-canary", headers={"Referer": "https://x/?token=secret-canary"})
    # nginx writes the line after the answer has left.
    wait_until(lambda: "/api/marker" in edge.log.read_text(encoding="utf-8"), 10, "the request's line in the log")
    assert "secret-canary" not in edge.log.read_text(encoding="utf-8")
