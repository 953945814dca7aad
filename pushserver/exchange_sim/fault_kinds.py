"""The ways an answer can go wrong: each kind either replaces the answer or distorts a good one.

A kind lists its options with their defaults; an option that is not listed is refused when the fault is set.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson

from pushserver.exchange_sim import refusals
from pushserver.exchange_sim.http_messages import Answer

Options = dict[str, Any]
Replace = Callable[[Options, int], Answer]
Distort = Callable[[Options, Answer, random.Random], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """``replace`` is told the options and the exchange's time in ms; ``distort`` changes an answer in place."""

    options: Options = field(default_factory=dict)
    replace: Replace | None = None
    distort: Distort | None = None


def error(code: int | str, message: str, now_ms: int, headers: dict[str, str] | None = None) -> Answer:
    body: dict[str, Any] = {"retCode": code, "retMsg": message, "result": {}, "retExtInfo": {}, "time": now_ms}
    return Answer(payload=body, headers=headers or {})


def coded(code: int) -> Kind:
    return Kind(
        options={"message": refusals.MESSAGES[code]},
        replace=lambda options, now_ms: error(code, options["message"], now_ms),
    )


def rate_limited(options: Options, now_ms: int) -> Answer:
    headers = {"X-Bapi-Limit": "50", "X-Bapi-Limit-Status": "0"}
    distance_ms = {"future": options["reset_in_ms"], "past": -options["reset_in_ms"]}
    if options["reset"] in distance_ms:
        headers["X-Bapi-Limit-Reset-Timestamp"] = str(now_ms + distance_ms[options["reset"]])
    return error(refusals.TOO_MANY_VISITS, options["message"], now_ms, headers)


def http_status(options: Options, now_ms: int) -> Answer:
    body = options["body"].encode()
    return Answer(status=options["status"], raw=body, content_type=options["content_type"])


def fixed(raw: bytes, content_type: str = "application/json; charset=utf-8") -> Replace:
    return lambda options, now_ms: Answer(raw=raw, content_type=content_type)


def html(options: Options, now_ms: int) -> Answer:
    page = b"<!DOCTYPE html><html><head><title>Bybit</title></head><body><h1>Under maintenance</h1></body></html>"
    return Answer(status=options["status"], raw=page, content_type="text/html; charset=utf-8")


def geo_block(options: Options, now_ms: int) -> Answer:
    """What the edge says to addresses of countries it does not serve, and to requests it finds malformed."""
    page = (
        b"<!DOCTYPE HTML><HTML><HEAD><TITLE>ERROR: The request could not be satisfied</TITLE></HEAD><BODY><H1>403 ERROR"
        b"</H1>The Amazon CloudFront distribution is configured to block access from your country.</BODY></HTML>"
    )
    return Answer(status=403, raw=page, content_type="text/html", headers={"X-Cache": "Error from cloudfront"})


def redirect(options: Options, now_ms: int) -> Answer:
    return Answer(status=options["status"], raw=b"", headers={"Location": options["location"]})


def huge_body(options: Options, now_ms: int) -> Answer:
    padding = "x" * options["bytes"]
    return error(0, padding, now_ms)


@cache
def packed_megabyte() -> bytes:
    return gzip.compress(b" " * 1_000_000, compresslevel=9)


def gzip_bomb(options: Options, now_ms: int) -> Answer:
    """Valid JSON, followed by so many bytes of white space, compressed about 1000 to 1."""
    start = gzip.compress(error(0, "OK", now_ms).body())
    padding = packed_megabyte() * max(1, options["bytes"] // 1_000_000)
    return Answer(raw=start + padding, headers={"Content-Encoding": "gzip"})


def legacy_error(options: Options, now_ms: int) -> Answer:
    return Answer(payload={"ret_code": options["code"], "ret_msg": options["message"], "result": None})


def cut(options: Options, answer: Answer, chance: random.Random) -> None:
    if options["after_bytes"] is None:
        answer.cut_at_once = True
    else:
        answer.send_only = options["after_bytes"]


def hang(options: Options, answer: Answer, chance: random.Random) -> None:
    answer.hang_s = options["seconds"]


def latency(options: Options, answer: Answer, chance: random.Random) -> None:
    """The state was read before the wait: what arrives is as old as the wait was long."""
    mean = options["seconds"]
    draws: dict[str, Callable[[], float]] = {
        "constant": lambda: mean,
        "uniform": lambda: chance.uniform(0.0, 2 * mean),
        "exponential": lambda: chance.expovariate(1 / mean) if mean else 0.0,
        "lognormal": lambda: chance.lognormvariate(0.0, options["sigma"]) * mean,
    }
    drawn = draws[options["distribution"]]()
    answer.delay_s += min(drawn, options["most"])


def queued(options: Options, answer: Answer, chance: random.Random) -> None:
    """The request waited before it was looked at; that its time was judged late is the REST side's business."""
    answer.delay_s += options["seconds"]


def dripping(options: Options, answer: Answer, chance: random.Random) -> None:
    answer.bytes_per_s = options["bytes_per_s"]


def truncated(options: Options, answer: Answer, chance: random.Random) -> None:
    """Broken JSON with a Content-Length that fits it: a whole HTTP answer, half a document."""
    body = answer.body()
    answer.raw = body[: int(len(body) * options["fraction"])]


def string_codes(options: Options, answer: Answer, chance: random.Random) -> None:
    if isinstance(answer.payload, dict) and "retCode" in answer.payload:
        answer.payload["retCode"] = str(answer.payload["retCode"])


def time_skew(options: Options, answer: Answer, chance: random.Random) -> None:
    if isinstance(answer.payload, dict) and "time" in answer.payload:
        answer.payload["time"] += options["ms"]


def missing_list(options: Options, answer: Answer, chance: random.Random) -> None:
    if isinstance(answer.payload, dict) and isinstance(answer.payload.get("result"), dict):
        answer.payload["result"].pop("list", None)


def empty_list(options: Options, answer: Answer, chance: random.Random) -> None:
    if isinstance(answer.payload, dict) and "list" in answer.payload.get("result", {}):
        answer.payload["result"]["list"] = []


def repeated_cursor(options: Options, answer: Answer, chance: random.Random) -> None:
    """Every page names the same next page, for ever."""
    if isinstance(answer.payload, dict) and "nextPageCursor" in answer.payload.get("result", {}):
        answer.payload["result"]["nextPageCursor"] = options["cursor"]


def is_number(value: object) -> bool:
    return isinstance(value, str) and value.lstrip("-").replace(".", "", 1).isdigit()


def change_fields(node: Any, names: list[str] | None, change: Callable[[dict[str, Any], str], None]) -> None:
    """Apply ``change`` to the named fields below ``node`` (None: to all that look like numbers)."""
    if isinstance(node, list):
        for item in node:
            change_fields(item, names, change)
    elif isinstance(node, dict):
        for name in list(node):
            if name in names if names is not None else is_number(node[name]):
                change(node, name)
            else:
                change_fields(node[name], names, change)


def set_fields(value: Any) -> Distort:
    def distort(options: Options, answer: Answer, chance: random.Random) -> None:
        if isinstance(answer.payload, dict):
            change_fields(answer.payload.get("result"), options["fields"], lambda row, name: row.update({name: value}))

    return distort


def drop_fields(options: Options, answer: Answer, chance: random.Random) -> None:
    if isinstance(answer.payload, dict):
        change_fields(answer.payload.get("result"), options["fields"], lambda row, name: row.pop(name))


def not_a_number(options: Options, answer: Answer, chance: random.Random) -> None:
    """``as_string``: "NaN" in quotes; else the bare word, which is no JSON but which lenient parsers take."""
    mark = "NaN" if options["as_string"] else "\x00NaN\x00"
    set_fields(mark)(options, answer, chance)
    if not options["as_string"] and answer.raw is None:
        answer.raw = orjson.dumps(answer.payload).replace(b'"\\u0000NaN\\u0000"', b"NaN")


#: Options that take one of a few words.
CHOICES = {"reset": ("future", "past", "none"), "distribution": ("constant", "uniform", "exponential", "lognormal")}

KINDS: dict[str, Kind] = {
    "rate_limited": Kind({"reset": "future", "reset_in_ms": 1000, "message": refusals.MESSAGES[10006]}, rate_limited),
    "timestamp": coded(refusals.BAD_TIMESTAMP),
    "key_invalid": coded(refusals.UNKNOWN_KEY),
    "permission_denied": coded(refusals.PERMISSION_DENIED),
    "ip_not_allowed": coded(refusals.ADDRESS_NOT_ALLOWED),
    "system_error": coded(10016),
    "request_timeout": Kind(
        {"message": "Request timeout, please try again later"},
        lambda options, now_ms: error(10016, options["message"], now_ms),
    ),
    "server_timeout": coded(10000),
    "key_expired": coded(refusals.KEY_EXPIRED),
    "ret_code": Kind(
        {"code": 10016, "message": "error"},
        lambda options, now_ms: error(options["code"], options["message"], now_ms),
    ),
    "legacy_error": Kind({"code": "-2015", "message": "Invalid API-key, IP, or permissions for action."}, legacy_error),
    "http_status": Kind({"status": 503, "body": "", "content_type": "text/html"}, http_status),
    "html": Kind({"status": 200}, html),
    "geo_block": Kind(replace=geo_block),
    "empty": Kind(replace=fixed(b"")),
    "array": Kind(replace=fixed(b"[]")),
    "null": Kind(replace=fixed(b"null")),
    "redirect": Kind({"status": 302, "location": "http://127.0.0.1:9/elsewhere"}, redirect),
    "huge_body": Kind({"bytes": 10_000_000}, huge_body),
    "gzip_bomb": Kind({"bytes": 100_000_000}, gzip_bomb),
    "string_codes": Kind(distort=string_codes),
    "truncated": Kind({"fraction": 0.5}, distort=truncated),
    "cut": Kind({"after_bytes": None}, distort=cut),
    "hang": Kind({"seconds": 3600.0}, distort=hang),
    "latency": Kind({"seconds": 1.0, "distribution": "constant", "sigma": 1.0, "most": 60.0}, distort=latency),
    "queued": Kind({"seconds": 6.0}, distort=queued),
    "stale": Kind({"ms": 1500}),
    "drip": Kind({"bytes_per_s": 100.0}, distort=dripping),
    "blank_numbers": Kind({"fields": None}, distort=set_fields("")),
    "null_fields": Kind({"fields": None}, distort=set_fields(None)),
    "missing_fields": Kind({"fields": None}, distort=drop_fields),
    "nan": Kind({"fields": None, "as_string": False}, distort=not_a_number),
    "missing_list": Kind(distort=missing_list),
    "empty_list": Kind(distort=empty_list),
    "repeated_cursor": Kind({"cursor": "again%2C1%2C0"}, distort=repeated_cursor),
    "time_skew": Kind({"ms": 60_000}, distort=time_skew),
}
