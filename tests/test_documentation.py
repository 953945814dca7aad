"""What the documents promise is there: links, settings, events, and the same content in both languages."""

from __future__ import annotations

import ast
import re
import socket
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from pushserver.errors import SettingsError
from pushserver.events import CLIENT_EVENTS
from pushserver.model import DataType
from pushserver.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
READMES = ("README.md", "README.zh-CN.md")
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "clients/**/*.md")
    for path in ROOT.glob(pattern)
    if "node_modules" not in path.parts and ".venv" not in path.parts
)
#: Defaults that a table says in words; what Settings shows for them.
DEFAULTS_IN_WORDS = {
    "unset": "",
    "未设置": "",
    "same origin": "",
    "同源": "",
    "host name": socket.gethostname(),
    "主机名": socket.gethostname(),
}
REQUIRED_IN_WORDS = ("required", "必填")
#: What stands between several names or defaults of one row.
BETWEEN = re.compile(r", |、")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_blocks(text: str) -> list[str]:
    """Fenced blocks from fence to fence, the language included."""
    return re.findall(r"^```.*?^```$", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[str]:
    """The lines of a block that are typed, without their comments."""
    return [re.sub(r"\s+# .*", "", line) for line in block.splitlines() if line.startswith("$ ")]


def tables(text: str) -> list[list[list[str]]]:
    """Table, row, cell; without the line of dashes."""
    found = re.findall(r"(?:^\|.*\|$\n?)+", prose(text), re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.strip("|-")]
        for table in found
    ]


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ .*$", prose(text), re.MULTILINE)


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    words = re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower())
    return words.replace(" ", "-")


def table_with(text: str, marker: str) -> list[list[str]]:
    """The rows below the title of the one table with a first cell that begins with ``marker``."""
    (table,) = [table for table in tables(text) if any(row[0].startswith(marker) for row in table)]
    return table[1:]


def documented_defaults(text: str) -> dict[str, str]:
    """Setting to the cell text of its default, rows of several settings taken apart; the limits have a page apart."""
    defaults: dict[str, str] = {}
    limits = table_with(text_of("docs/limits.md"), "`MAX_CONNECTIONS_PER_USER`")
    for names_cell, defaults_cell, _meaning in table_with(text, "`REDIS_URL`") + limits:
        names, values = BETWEEN.split(names_cell), BETWEEN.split(defaults_cell)
        assert len(names) == len(values), f"{names_cell}: a default for each, please"
        defaults.update(zip((name.strip("`") for name in names), values, strict=True))
    return defaults


def documented_events(text: str) -> set[str]:
    """Names in the first columns of the two event tables; a client's event stands before its payload."""
    cells = [row[0] for marker in ("`whoami`", "`connected`") for row in table_with(text, marker)]
    return {quoted.split(" ")[0] for cell in cells for quoted in re.findall(r"`([^`]+)`", cell)}


def events_of_the_code() -> set[str]:
    """What clients may send, and every event name that is passed to an emit as it stands."""
    names = set(CLIENT_EVENTS) | {f"{data_type.value}_update" for data_type in DataType}
    for path in (ROOT / "pushserver").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("emit", "encode_event") and isinstance(node.args[0].value, str):
                names.add(node.args[0].value)
    return names


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_lead_somewhere(document: str) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text_of(document))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        inside = path.resolve().is_relative_to(ROOT) and path.exists()
        if not inside or (fragment and fragment not in map(anchor, headings(path.read_text(encoding="utf-8")))):
            lost.append(target)
    assert lost == []


@pytest.mark.parametrize("readme", READMES)
def test_every_setting_is_documented_with_its_default(readme: str) -> None:
    required = {"JWT_SECRETS": "k" * 32, "CREDENTIALS_KEYS": Fernet.generate_key().decode()}
    documented = documented_defaults(text_of(readme))
    in_force = dict(Settings.from_env(required).printable())
    assert sorted(documented) == sorted(in_force)
    for name, value in documented.items():
        if value in REQUIRED_IN_WORDS:
            assert name in required, f"{name} can be left out"
        else:
            assert name not in required, f"{name} cannot be left out"
            assert DEFAULTS_IN_WORDS.get(value, value.strip("`")) == in_force[name], name


def test_the_settings_called_required_are_those_that_a_process_asks_for() -> None:
    with pytest.raises(SettingsError) as error:
        Settings.from_env({})
    asked_for = {problem.split(" ")[0] for problem in error.value.problems}
    for readme in READMES:
        defaults = documented_defaults(text_of(readme))
        assert {name for name, value in defaults.items() if value in REQUIRED_IN_WORDS} == asked_for


@pytest.mark.parametrize("readme", READMES)
def test_the_event_tables_name_every_event_of_the_code_and_no_other(readme: str) -> None:
    assert documented_events(text_of(readme)) == events_of_the_code()


def test_both_languages_have_the_same_structure() -> None:
    english, chinese = (text_of(readme) for readme in READMES)
    assert [line.split(" ")[0] for line in headings(english)] == [line.split(" ")[0] for line in headings(chinese)]
    assert [[len(row) for row in table] for table in tables(english)] == [
        [len(row) for row in table] for table in tables(chinese)
    ]
    assert len(code_blocks(english)) == len(code_blocks(chinese))


def test_both_languages_show_the_same_commands_and_names() -> None:
    english, chinese = (text_of(readme) for readme in READMES)
    assert [commands(block) for block in code_blocks(english)] == [commands(block) for block in code_blocks(chinese)]
    assert any(commands(block) for block in code_blocks(english))
    # A translation keeps what is in code style, in the same number; only the order within a sentence may differ.
    assert sorted(re.findall(r"`([^`\n]+)`", prose(english))) == sorted(re.findall(r"`([^`\n]+)`", prose(chinese)))


def test_both_languages_link_to_each_other_and_to_the_same_places() -> None:
    english, chinese = (set(re.findall(r"\]\(([^)\s]+)\)", text_of(readme))) for readme in READMES)
    assert "README.zh-CN.md" in english
    assert "README.md" in chinese
    assert english - {"README.zh-CN.md"} == chinese - {"README.md"}
