"""Texts for the UTF-8 cases 6.5 to 6.23, group by group: after Markus Kuhn's decoder stress test.

http://www.cl.cam.ac.uk/~mgk25/ucs/examples/UTF-8-test.txt; whether a text is valid is written down, not computed,
except for prefixes, where it follows from the length.
"""

from __future__ import annotations

_KOSME = bytes.fromhex("cebae1bdb9cf83cebcceb5")
#: Where a character of the Greek word ends.
_KOSME_ENDS = (2, 5, 7, 9, 11)

_CUT_SEQUENCES = ("c0", "e080", "f08080", "f8808080", "fc80808080", "df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf")


def _all(valid: bool, *hexadecimal: str) -> list[tuple[bool, bytes]]:
    return [(valid, bytes.fromhex(text)) for text in hexadecimal]


def _lonely_starts(first: int, end: int) -> str:
    return "".join(f"{start:02x}20" for start in range(first, end))


def _non_characters() -> list[str]:
    """The last two code points of every plane, from the first to the sixteenth."""
    planes = [chr(plane * 0x10000 + 0xFFFE + last) for plane in range(1, 17) for last in (0, 1)]
    return ["efbfbe", "efbfbf", *(character.encode().hex() for character in planes)]


#: Group 6.5 is the first. Each text with whether it is valid.
GROUPS: tuple[list[tuple[bool, bytes]], ...] = (
    # some valid text
    [(True, b"hello" + character.encode() + b"world") for character in "$¢€\U00024b62"] + [(True, _KOSME)],
    # all prefixes of a valid text
    [(length in _KOSME_ENDS, _KOSME[:length]) for length in range(1, len(_KOSME) + 1)],
    # the first sequence of each length, and of the lengths that are not allowed
    _all(True, "00", "c280", "e0a080", "f0908080"),
    _all(False, "f888808080", "fc8480808080"),
    # the last ones
    _all(True, "7f", "dfbf", "efbfbf", "f48fbfbf"),
    _all(False, "f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf"),
    # other boundaries
    [*_all(True, "ed9fbf", "ee8080", "efbfbd", "f48fbfbf"), *_all(False, "f4908080")],
    # continuation bytes without a start
    _all(False, "80", "bf", "80bf", "80bf80", "80bf80bf", "80bf80bf80", "80bf80bf80bf", bytes(range(0x80, 0xBF)).hex()),
    # starts without a continuation
    _all(False, *(_lonely_starts(*span) for span in ((0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB),
                                                    (0xFC, 0xFD)))),
    # the last continuation byte missing: each alone, then all together
    _all(False, *_CUT_SEQUENCES),
    _all(False, "".join(_CUT_SEQUENCES)),
    # impossible bytes
    _all(False, "fe", "ff", "fefeffff"),
    # overlong ASCII, overlong maxima, overlong NUL
    _all(False, "c0af", "e080af", "f08080af", "f8808080af", "fc80808080af"),
    _all(False, "c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf"),
    _all(False, "c080", "e08080", "f0808080", "f880808080", "fc8080808080"),
    # surrogates, alone and in pairs
    _all(False, "eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf"),
    _all(False, "eda080edb080", "eda080edbfbf", "edadbfedb080", "edadbfedbfbf", "edae80edb080", "edae80edbfbf",
         "edafbfedb080", "edafbfedbfbf"),
    # code points that are no characters, and special ones: valid all the same
    _all(True, *_non_characters()),
    _all(True, "efbfb9", "efbfba", "efbfbb", "efbfbc", "efbfbd", "efbfbe", "efbfbf"),
)  # fmt: skip
