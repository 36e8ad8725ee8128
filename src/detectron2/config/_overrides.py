"""The grammar of overrides such as ``train.steps=[1,2]``: Hydra's, without sweeps and groups."""

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

_OVERRIDE = re.compile(
    r"\s*(?P<sign>\+\+|\+|~)?(?P<key>[^=]*?)\s*(?P<equals>=(?P<value>.*))?", re.S
)
_KEY = re.compile(r"[\w$-]+(\[[^\[\]]+\])*(\.[\w$-]+(\[[^\[\]]+\])*)*")
_INT = re.compile(r"[+-]?(0|[1-9][0-9_]*)")
_FLOAT = re.compile(
    r"[+-]?([0-9][0-9_]*(\.[0-9_]*)?[eE][+-]?[0-9][0-9_]*"
    r"|([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][+-]?[0-9][0-9_]*)?|inf|nan)",
    re.I,
)
_FUNCTION = re.compile(r"([A-Za-z_]\w*)\s*\(")
_WORDS = {"null": None, "true": True, "false": False}
_ESCAPED = set("\\()[]{}:=, \t")


def parse_override(text: str) -> tuple[str, str, Any]:
    """Take an override apart.

    A value is ``null``, ``true``, ``false`` (in any case), an int, a float (also ``inf`` and
    ``nan``), a list ``[a,b]``, a dict ``{a:1,b:2}``, a quoted string, or else a string as it
    stands, where any of ``\\()[]{}:=,`` may have a backslash before it. ``${...}`` stays for
    omegaconf to resolve. ``int``, ``float``, ``bool``, ``str`` and ``json_str`` convert, the first
    four item by item: ``str([1,2])``. After ``=`` there may be nothing: the empty string.

    Args:
        text: ``key=value``, ``+key=value``, ``++key=value`` or ``~key``.

    Returns:
        The sign (``"+"``, ``"++"``, ``"~"`` or ``""``), the dotted key, and the value, which is
        None for ``~key``.

    Raises:
        ValueError: if the text is not of this form.
    """
    match = _OVERRIDE.fullmatch(text)
    assert match is not None
    sign, key = match["sign"] or "", match["key"]
    if match["equals"] is None and sign != "~":
        raise ValueError(f"The override {text!r} has no '=': write key=value")
    if not _KEY.fullmatch(key):
        raise ValueError(f"The override {text!r} has no key like 'train.lr' before its '='")
    value = None if match["equals"] is None else _Value(match["value"], text).parse()
    return sign, key, value


class _Value:
    """Reads one value, character by character."""

    def __init__(self, text: str, override: str) -> None:
        self.text = text
        self.override = override
        self.at = 0

    def parse(self) -> Any:
        if not self.text.strip():
            return ""
        value = self.element(stops=",")
        if self.peek() == ",":
            self.fail("a sweep over several values is not supported; a list is written [a,b]")
        if self.peek():
            self.fail(f"unexpected {self.text[self.at :]!r}")
        return value

    def peek(self) -> str:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def fail(self, why: str) -> NoReturn:
        raise ValueError(f"The override {self.override!r} cannot be read: {why}")

    def element(self, stops: str) -> Any:
        first = self.peek()
        if first in ("'", '"'):
            return self.quoted(first)
        if first == "[":
            return self.items("]", self.element)
        if first == "{":
            return dict(self.items("}", self.pair))
        function = _FUNCTION.match(self.text, self.at)
        if function:
            return self.converted(function)
        return self.unquoted(stops)

    def items(self, end: str, read: Callable[[str], Any]) -> list[Any]:
        self.at += 1
        found: list[Any] = []
        while self.peek() != end:
            if found:
                self.expect(",", f"',' or {end!r}")
            found.append(read("," + end))
        self.at += 1
        return found

    def pair(self, stops: str) -> tuple[Any, Any]:
        key = self.element(":" + stops)
        if isinstance(key, list | dict):
            self.fail(f"a dict's key cannot be {key!r}")
        self.expect(":", f"':' after the key {key!r}")
        return key, "" if self.peek() in stops else self.element(stops)

    def expect(self, character: str, wanted: str) -> None:
        if self.peek() != character:
            self.fail(f"{wanted} should stand before {self.text[self.at :]!r}")
        self.at += 1

    def quoted(self, quote: str) -> str:
        parts: list[str] = []
        # Backslashes are text, except before a quote.
        for match in re.finditer(rf"([^\\{quote}]*)(\\*)({quote})?", self.text[self.at + 1 :]):
            plain, slashes, closing = match.groups()
            parts.append(plain)
            if not closing:
                parts.append(slashes)
            else:
                parts.append(slashes[: len(slashes) // 2])
                if len(slashes) % 2 == 0:
                    self.at += 1 + match.end()
                    return "".join(parts)
                parts.append(quote)
        self.fail(f"there is no closing {quote}")

    def unquoted(self, stops: str) -> Any:
        text, solid = "", 0
        escaped = False
        while self.at < len(self.text) and self.text[self.at] not in stops:
            character = self.text[self.at]
            follower = self.text[self.at + 1 : self.at + 2]
            if character == "\\" and follower and follower in _ESCAPED:
                character, escaped = follower, True
                self.at += 1
                solid = len(text) + 1
            elif character == "$" and follower == "{":
                character = self.interpolation()
                self.at -= 1
            elif character in "[]{}()'\"":
                self.fail(f"{character!r} within {self.text!r} needs quotes or a backslash")
            text += character
            self.at += 1
            if not character.isspace():
                solid = len(text)
        text = text[:solid]
        if not text:
            self.fail(f"a value is missing before {self.text[self.at :]!r}")
        return text if escaped else _typed(text)

    def interpolation(self) -> str:
        start, depth = self.at, 0
        while self.at < len(self.text):
            depth += {"{": 1, "}": -1}.get(self.text[self.at], 0)
            self.at += 1
            if depth == 0 and self.text[self.at - 1] == "}":
                return self.text[start : self.at]
        self.fail("'${' is not closed")

    def converted(self, function: re.Match[str]) -> Any:
        name = function[1]
        if name not in _CONVERSIONS:
            self.fail(f"the function {name} is not supported; a string with '(' needs quotes")
        self.at = function.end()
        value = self.element(")")
        self.expect(")", "')'")
        try:
            return _CONVERSIONS[name](value)
        except (TypeError, ValueError) as error:
            self.fail(str(error))


def _typed(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _bool(value: Any) -> bool:
    word = _WORDS.get(value.lower()) if isinstance(value, str) else value
    if isinstance(word, bool | int | float):
        return bool(word)
    raise ValueError(f"{value!r} is no bool")


def _str(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def _each(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def converted(value: Any) -> Any:
        if isinstance(value, list):
            return [converted(item) for item in value]
        if isinstance(value, dict):
            return {key: converted(item) for key, item in value.items()}
        return convert(value)

    return converted


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "int": _each(int),
    "float": _each(float),
    "bool": _each(_bool),
    "str": _each(_str),
    "json_str": json.dumps,
}
