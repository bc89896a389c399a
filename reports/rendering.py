"""The templates of `reports/templates/`, rendered by Jinja2 so that no text of a catalogue can be anything but text.

Whatever a template prints is cut, freed of what is not printable, and escaped (`text`), unless it is `Markup`: charts, pictures
drawn by us, and texts that went through `text` with a limit of their own. A name that nobody set is an error, not an empty place.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound
from markupsafe import Markup

from sidlake.errors import NotFoundError
from sidlake.reports.text import count, number, text

__all__ = ["render"]

TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, **values: object) -> str:
    """Return the text of `template`, a file of `reports/templates/`; the same values give the same text.

    Raises `NotFoundError` where the template is not among the installed files, `jinja2.UndefinedError` where it names what `values`
    do not have.
    """
    try:
        found = _environment().get_template(template)
    except TemplateNotFound as error:  # an OSError, which callers take for a full disk
        msg = f"{TEMPLATES / str(error.name)} is missing from this installation of sidlake: install it again"
        raise NotFoundError(msg, template=str(error.name)) from error
    return found.render(**values)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printed,
    )
    environment.filters |= {"text": text, "number": number, "count": count}
    return environment


def _printed(value: object) -> Markup:
    return value if isinstance(value, Markup) else text(value)
