"""The rules of the code base that a machine can check: who imports whom, where time comes from, how doors open."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pushserver"
MAX_LINES = 300
#: Alembic fills these from its own template and names them by revision.
GENERATED = PACKAGE / "accounts" / "migrations" / "versions"
#: Ways to ask the machine what time it is.
CLOCK_READS = {"now", "utcnow", "today"}


def sources() -> list[Path]:
    files = sorted(path for path in PACKAGE.rglob("*.py") if GENERATED not in path.parents)
    assert files
    return files


def tracked_files() -> list[Path]:
    require(shutil.which("git") and (ROOT / ".git").exists(), "a git checkout, to know what is committed")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_modules(tree: ast.AST) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return modules


def clock_reads(tree: ast.AST) -> list[str]:
    """Every way around the Clock: the time module, and datetime asked without being given a moment."""
    found = [f"imports {module}" for module in imported_modules(tree) if module.split(".")[0] == "time"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CLOCK_READS:
            owner = ast.unparse(node.value)
            if owner.split(".")[-1] in ("datetime", "date"):
                found.append(f"line {node.lineno}: {owner}.{node.attr}")
    return found


def test_every_import_rule_holds() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    require(lint_imports.exists(), "import-linter (requirements-dev.txt)")
    result = subprocess.run(
        [str(lint_imports), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_only_the_clock_reads_the_time() -> None:
    offenders = {
        name_of(path): reads
        for path in sources()
        if path != PACKAGE / "clock.py" and (reads := clock_reads(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert offenders == {}


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "from time import monotonic",
        "import datetime\nx = datetime.datetime.now()",
        "from datetime import datetime, UTC\nx = datetime.now(UTC)",
        "from datetime import date\nx = date.today()",
    ],
)
def test_a_read_of_the_time_would_be_seen(text: str) -> None:
    assert clock_reads(ast.parse(text))


def test_no_source_file_holds_more_than_one_concept() -> None:
    long_files = {
        name_of(path): lines
        for path in sources()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long_files == {}


def test_package_files_import_nothing() -> None:
    """Python runs them before the door's monkey patch."""
    busy = []
    for path in PACKAGE.rglob("__init__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for statement in tree.body:
            is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            is_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
            if not is_docstring and not is_future:
                busy.append(f"{name_of(path)}:{statement.lineno}")
    assert busy == []


#: Imports a door and stops at its monkey patch, printing what was imported before it.
STOP_AT_THE_PATCH = """
import importlib, json, sys
from gevent import monkey

class Patched(BaseException):
    pass

def stop(*args, **options):
    raise Patched

monkey.patch_all = stop
before = set(sys.modules)
try:
    importlib.import_module(sys.argv[1])
except Patched:
    print(json.dumps(sorted(set(sys.modules) - before)))
else:
    sys.exit("the door never patched")
"""


@pytest.mark.parametrize(
    ("door", "may_be_imported"),
    [
        ("wsgi", {"wsgi"}),
        ("pushserver.workers.__main__", {"pushserver", "pushserver.workers", "pushserver.workers.__main__"}),
    ],
)
def test_doors_patch_before_anything_else_is_imported(door: str, may_be_imported: set[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", STOP_AT_THE_PATCH, door],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert set(json.loads(result.stdout)) <= may_be_imported | {"__future__"}


def test_gunicorn_configuration_imports_no_application_code() -> None:
    """The master reads it before the fork: what it imports is loaded unpatched and shared by all workers."""
    tree = ast.parse((ROOT / "gunicorn.conf.py").read_text(encoding="utf-8"))
    at_the_top: set[str] = set()
    for statement in tree.body:
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            at_the_top |= {module.split(".")[0] for module in imported_modules(statement)}
    assert at_the_top & {"pushserver", "flask", "flask_socketio", "socketio", "redis", "sqlalchemy", "wsgi"} == set()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_exact_pins(name: str) -> None:
    lines = [line.strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#") and line != "-r requirements.txt"]
    assert wanted
    assert [line for line in wanted if not re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==(\d+!)?[\w.]+", line)] == []


def test_javascript_packages_are_locked_without_naming_a_registry() -> None:
    wanted = json.loads((ROOT / "tests/js/package.json").read_text(encoding="utf-8"))["dependencies"]
    assert [version for version in wanted.values() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
    locked = json.loads((ROOT / "tests/js/package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert [name for name, package in locked.items() if "resolved" in package] == []


def test_committed_text_names_no_path_of_one_machine() -> None:
    # Put together from halves, so that this file does not name one itself.
    machine_path = re.compile("(?<![\\w.:}/-])/" + "(?:work|root|Users|home)" + "/[\\w.-]+")
    named = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        named += [f"{name_of(path)}: {found[0]}" for found in machine_path.finditer(text)]
    assert named == []
