"""Numbers and texts as the quality report writes them: numbers with their unit, and texts of strangers that can do no harm.

Templates write whatever is not `Markup` through `text`; what goes to a terminal goes through `visible`. Not done here: sentences
about metrics (`readings`).
"""

from __future__ import annotations

from unicodedata import category

from markupsafe import Markup, escape

from sidlake.quality.reading_rows import Unit

__all__ = ["count", "number", "text", "visible"]

_MAX_CHARACTERS = 80
_HARMLESS = "\n\u200c\u200d"  # line feed, zero-width non-joiner and joiner
_SMALL = 5e-5
_PLAIN_UNITS = ("", "share", "index", "distance")


def text(value: object, limit: int = _MAX_CHARACTERS) -> Markup:
    r"""Return `value` escaped for HTML, cut to `limit` characters, unprintable ones (line ends, reversals) as blanks.

    >>> str(text('<b onclick="x">\n'))
    '&lt;b onclick=&#34;x&#34;&gt; '
    """
    shown = str(value)[: limit + 1]
    if not shown.isprintable():
        shown = "".join(character if character.isprintable() else " " for character in shown)
    return escape(shown if len(shown) <= limit else shown[: limit - 1] + "…")


def visible(value: str) -> str:
    r"""Return `value` with what a terminal would obey written out: escapes, other control characters, reversals of direction.

    Line feeds stay, tabs and rare blanks become blanks, and the joiners that emoji and Indic scripts are written with stay too.

    >>> visible("red\x1b[2Jmug\u202e")
    'red\\x1b[2Jmug\\u202e'
    """
    return "".join(sign if sign.isprintable() or sign in _HARMLESS else _written_out(sign) for sign in value)


def _written_out(sign: str) -> str:
    return " " if sign == "\t" or category(sign) == "Zs" else sign.encode("unicode_escape").decode()


def number(value: float | None, unit: Unit = "") -> str:
    """Return a value for a person: shares as percentages, whole numbers whole, others with up to four digits.

    A share that is not quite 0 or 1 never reads as 0% or 100%.

    >>> number(0.1981, "share"), number(0.99998, "share"), number(94.0, "items"), number(4.2187, "nats"), number(None)
    ('19.8%', '99.998%', '94 items', '4.219 nats', 'not measured')
    """
    if value is None:
        return "not measured"
    if unit == "share":
        return _percent(value)
    plain = f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else "0" if abs(value) < _SMALL else f"{value:.4g}"
    if unit in _PLAIN_UNITS:
        return plain
    return f"{plain} {unit.removesuffix('s') if plain == '1' else unit}"


def count(value: int) -> str:
    """Return a count with separators, and from a billion on in words.

    >>> count(2_097_152), count(4_294_967_296)
    ('2,097,152', '4.3 billion')
    """
    for size, word in ((10**18, "quintillion"), (10**15, "quadrillion"), (10**12, "trillion"), (10**9, "billion")):
        if value >= size:
            return f"{value / size:,.1f} {word}"
    return f"{value:,}"


def _percent(value: float) -> str:
    if value in (0.0, 1.0):
        return f"{value:.0%}"
    for digits in range(1, 7):
        shown = f"{value:.{digits}%}"
        if float(shown[:-1]) not in (0.0, 100.0):
            return shown
    return shown
