"""The console's files: one page, no inline script, nothing from elsewhere, nothing kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask

from pushserver.events import CLIENT_EVENTS
from pushserver.model import DataType
from pushserver.web.console.blueprint import create_console

STATIC = Path(__file__).resolve().parents[2] / "pushserver" / "web" / "console" / "static"


@pytest.fixture
def client():
    app = Flask(__name__, static_folder=None)
    app.register_blueprint(create_console())
    return app.test_client()


def test_F07_the_page_forbids_everything_but_its_own_files(client):
    answer = client.get("/")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";") if part)
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    # B11: no address of ours, and so no token in one, goes to anybody as a referrer.
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_F07_no_script_or_style_stands_in_the_page_and_every_file_it_names_is_served(client):
    page = client.get("/").get_data(as_text=True)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page) and "<style" not in page
    assert not re.search(r"\s(on\w+|style)=", page)
    named = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert len(named) >= 4
    for name in named:
        assert not name.startswith(("http:", "https:", "//"))
        assert client.get("/" + name.lstrip("/")).status_code == 200, name


def test_F07_the_token_is_kept_in_memory_only_and_text_is_never_made_markup():
    for script in STATIC.glob("*.js"):
        if script.name == "socket.io.min.js":
            continue
        text = script.read_text(encoding="utf-8")
        for word in ("localStorage", "sessionStorage", "document.cookie", "innerHTML", "outerHTML", "eval("):
            assert word not in text, f"{word} in {script.name}"


def test_the_console_speaks_the_events_of_the_contract():
    scripts = " ".join(
        script.read_text(encoding="utf-8") for script in STATIC.glob("*.js") if script.name != "socket.io.min.js"
    )
    assert {name for name in CLIENT_EVENTS if name in scripts} >= CLIENT_EVENTS - {"resync"}
    for data_type in DataType:
        assert data_type.value in scripts


@pytest.mark.parametrize(
    "path", ["/console/../blueprint.py", "/console/%2e%2e/blueprint.py", "/console/", "/console/nothing.js"]
)
def test_B09_nothing_outside_the_folder_is_served(client, path):
    assert client.get(path).status_code == 404
