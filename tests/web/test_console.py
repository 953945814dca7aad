"""The console's files and the headers that protect them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from pushserver.web.console.blueprint import create_console

STATIC = Path(str(files("pushserver.web.console") / "static"))
SCRIPTS = sorted(path for path in STATIC.glob("*.js") if path.name != "socket.io.min.js")


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    app = Flask("console", static_folder=None)
    app.register_blueprint(create_console())
    with app.test_client() as client:
        yield client


def directives(policy: str) -> dict[str, list[str]]:
    parts = (directive.split() for directive in policy.split(";"))
    return {name: sources for name, *sources in parts}


def test_the_page_and_every_file_it_names_are_served(client):
    page = client.get("/")
    assert page.status_code == 200 and page.mimetype == "text/html"
    named = re.findall(r'(?:href|src)="(console/[^"]+)"', page.text)
    assert {"console/console.css", "console/console.js", "console/socket.io.min.js"} <= set(named)
    for name in named:
        answer = client.get(f"/{name}")
        assert answer.status_code == 200, name
        answer.close()


def test_every_module_a_script_imports_is_there():
    for script in SCRIPTS:
        for name in re.findall(r'from "\./([^"]+)"', script.read_text()):
            assert (STATIC / name).is_file(), f"{script.name} imports {name}"


@pytest.mark.parametrize("path", ["/", "/console/console.js", "/console/console.css", "/console/nothing-here.js"])
def test_F07_a_strict_policy_is_on_every_answer(client, path):
    answer = client.get(path)
    policy = directives(answer.headers["Content-Security-Policy"])
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"]
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    answer.close()


def test_B11_no_address_of_ours_leaves_in_a_referer(client):
    assert client.get("/?token=eyJhbGciOi").headers["Referrer-Policy"] == "no-referrer"


def test_F07_the_page_has_no_inline_script_or_style():
    page = (STATIC / "index.html").read_text()
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))
    assert "<style" not in page
    assert not re.search(r"\s(?:style|on\w+)=", page)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_F07_no_script_makes_markup_of_text_or_keeps_the_token(script):
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|localStorage|sessionStorage|cookie"
    )
    assert not re.search(forbidden, script.read_text())


def test_nothing_is_loaded_from_another_host():
    own = [STATIC / "index.html", *STATIC.glob("*.css"), *SCRIPTS]
    for path in own:
        assert not re.search(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", path.read_text()), path.name


def test_a_path_out_of_the_folder_is_not_served(client):
    for path in ("/console/../blueprint.py", "/console/%2e%2e/blueprint.py"):
        assert client.get(path).status_code == 404


def test_an_unchanged_file_is_not_sent_twice(client):
    first = client.get("/console/console.js")
    again = client.get("/console/console.js", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304 and again.headers["Cache-Control"] == "no-cache"
    first.close()


def test_the_vendored_library_is_the_one_its_licence_names():
    library = (STATIC / "socket.io.min.js").read_bytes()
    licence = (STATIC / "socket.io.LICENSE.txt").read_text()
    assert hashlib.sha256(library).hexdigest() in licence
    assert b"Socket.IO v4.8.4" in library and "4.8.4" in licence and "MIT" in licence
