"""Whole lists out of pages: all of them or none, and never for ever."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pushserver.exchange.conversation import Conversation

#: More pages than any account needs: 4,000 positions, 1,000 open orders, 2,000 closed rows a week.
MAX_PAGES = 20
#: Page lengths of a server that ignores the limit it is asked for: Bybit's defaults (bybit-v5 2.3 to 2.5).
UNASKED_LENGTHS = (20, 50)
#: An opaque token, already percent-encoded; what could end a parameter or a request line is no token.
CURSOR = re.compile(r"[\x21-\x7e]{1,2048}")

Row = Mapping[str, Any]


def all_rows(conversation: Conversation, limit: int, category: str, **parameters: object) -> list[Row]:
    """The rows of all pages in their order, each with its ``category``.

    A page shorter than ``limit`` is the last one, whatever cursor it carries: the last page usually carries one.
    Only one of exactly a default's length may be full all the same, so its cursor is followed. Pages are no snapshot,
    so a row may be in two of them; telling them apart is for the caller.

    Raises:
        AnswerMalformed: a page without a list, with rows that are none, with a cursor that leads in a circle, or too
            many pages.
        ExchangeError: a page failed; those before it are worth nothing then.
    """
    rows: list[Row] = []
    cursors: set[str] = set()
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        result = conversation.ask_result(category=category, limit=limit, cursor=cursor, **parameters)
        page = conversation.rows_of(result)
        rows += [{**row, "category": category} for row in page]
        cursor = next_cursor(conversation, result)
        short = len(page) < limit
        if cursor is None or (short and len(page) not in UNASKED_LENGTHS):
            return rows
        if cursor in cursors:
            if short:
                return rows
            raise conversation.malformed("its pages go in a circle")
        cursors.add(cursor)
    raise conversation.malformed("it has too many pages")


def next_cursor(conversation: Conversation, result: Mapping[str, Any]) -> str | None:
    cursor = result.get("nextPageCursor")
    if cursor is None or cursor == "":
        return None
    if not isinstance(cursor, str) or not CURSOR.fullmatch(cursor) or "&" in cursor or "#" in cursor:
        raise conversation.malformed("its cursor is none")
    return cursor


def newest_of_each(rows: list[Row], *identity: str) -> list[Row]:
    """Rows that are the same thing, seen on two pages, count once: as it was read last."""
    return list({tuple(repr(row.get(name)) for name in identity): row for row in rows}.values())
