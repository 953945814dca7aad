"""JSON of the control calls into records: field by field, unknown names refused."""

from __future__ import annotations

import dataclasses
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

R = TypeVar("R")


def update(record: R, spec: Any, skip: frozenset[str] = frozenset()) -> R:
    """``record`` with the fields of ``spec`` in place of its own; ``skip`` names keys somebody else reads.

    Numbers come as JSON numbers or strings. Raises ValueError naming the field.
    """
    if not isinstance(spec, dict):
        raise ValueError(f"expected an object, not {spec!r}")
    kinds = {field.name: str(field.type) for field in dataclasses.fields(record)}  # type: ignore[arg-type]
    values = {}
    for name, value in spec.items():
        if name in skip:
            continue
        if name not in kinds:
            raise ValueError(f"unknown field {name!r}; there are {', '.join(kinds)}")
        values[name] = convert(name, value, kinds[name])
    return dataclasses.replace(record, **values)  # type: ignore[type-var]


def convert(name: str, value: Any, kind: str) -> Any:
    if kind == "Decimal":
        return decimal_of(value, name)
    expected = {"int": int, "str": str, "bool": bool, "int | None": int | None}.get(kind)
    if expected is None:
        raise ValueError(f"{name} cannot be set here")
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"{name} must be of type {kind}")
    return value


def decimal_of(value: Any, name: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{name} must be a number")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{name} must be a number, not {value!r}") from None
    if not number.is_finite():
        raise ValueError(f"{name} must be finite")
    return number


def optional_decimal(spec: dict[str, Any], name: str) -> Decimal | None:
    return decimal_of(spec[name], name) if spec.get(name) is not None else None


def object_of(spec: dict[str, Any], name: str) -> dict[str, Any]:
    """The object under ``name``, empty where it is left out."""
    value = spec.get(name, {})
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be an object")
    return value


def flag_of(spec: dict[str, Any], name: str, default: bool) -> bool:
    value = spec.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false")
    return value


def texts_of(spec: dict[str, Any], name: str) -> tuple[str, ...]:
    value = spec.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} must be a list of texts")
    return tuple(value)


def text_of(spec: Any, name: str) -> str:
    value = spec.get(name) if isinstance(spec, dict) else None
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is missing or no text")
    return value
