"""The templates of mails: a subject and a text, and the HTML beside it with its CSS where mail programs want it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flask import current_app
from jinja2 import Environment, StrictUndefined, Template, TemplateError, TemplateNotFound

from app.errors import PostroomError

MAX_SUBJECT = 500
"""Characters, the rest is cut off: SMTP ends a line at 998. Source: RFC 5321 4.5.3.1.6"""

MAX_STYLED_TAGS = 2000
"""The inliner goes down one level of the stack a nested tag and has no floor: it would take the process along."""


class EmailTemplateError(PostroomError):
    """A mail's template is missing, or cannot be rendered with what it was given."""

    code = "bad_email_template"


def render_text(name: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """Render a .txt template; return its first line, the subject, and the text below.

    Raises: EmailTemplateError.
    """
    templates = _mail_templates(current_app.jinja_env)
    try:
        assert templates.loader is not None
        first, body = _compile(templates, templates.loader.get_source(templates, name)[0])
        subject, text = one_line(first.render(values), MAX_SUBJECT), _clean(body.render(values))
    except TemplateNotFound as error:
        raise EmailTemplateError(
            f"app/templates/{error.name} does not exist. Write it: the subject in the first line, an empty "
            "line, then the text."
        ) from error
    except TemplateError as error:
        raise EmailTemplateError(f"app/templates/{name}: {error}") from error
    if not subject:
        raise EmailTemplateError(f"app/templates/{name} has an empty first line: it is the mail's subject.")
    return subject, text


def render_html(name: str, values: Mapping[str, Any]) -> str | None:
    """Render a .html template, if there is one; its <style> ends up in style attributes.

    Raises: EmailTemplateError.
    """
    templates = _mail_templates(current_app.jinja_env)
    try:
        return _inline_css(name, _clean(templates.get_template(name).render(values)))
    except TemplateError as error:
        if isinstance(error, TemplateNotFound) and error.name == name:
            return None
        raise EmailTemplateError(f"app/templates/{name}: {error}") from error


def one_line(text: str, most: int) -> str:
    """Put a text on one line of at most so many characters."""
    line = " ".join(_clean(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _inline_css(name: str, html: str) -> str:
    # Many mail programs ignore <style>, so rules go to the tags they mean; only @media and the like stay.
    begins, sheets = _STYLE_BEGINS.findall(html), _STYLE.findall(html)
    if not begins:
        return html
    problem = ""
    if len(begins) != len(sheets):
        problem = f"{len(begins)} <style> and {len(sheets)} </style>: what follows an open one is not shown"
    for sheet in sheets:
        css = _NO_CODE.sub("", sheet)
        if css.count("{") != css.count("}"):
            problem = (
                f"its <style> has {css.count('{')} '{{' and {css.count('}')} '}}', expected as many of each"
            )
    if (tags := len(_TAG_BEGINS.findall(html))) > MAX_STYLED_TAGS:
        problem = f"{tags} tags, at most {MAX_STYLED_TAGS} can be styled: link to a page that has it all"
    if problem:
        raise EmailTemplateError(f"app/templates/{name}: {problem}")
    import css_inline  # here, for it takes 2 MB

    # It fetches and opens nothing: what a template names by address stays an address.
    inliner = css_inline.CSSInliner(load_remote_stylesheets=False, keep_at_rules=True)
    try:
        return inliner.inline(html)
    except css_inline.InlineError as error:
        raise EmailTemplateError(f"app/templates/{name}: its CSS cannot be used: {error}") from error


_STYLE_BEGINS = re.compile(r"<style\b", re.IGNORECASE)
_STYLE = re.compile(r"<style\b[^>]*>(.*?)</style\s*>", re.IGNORECASE | re.DOTALL)
_TAG_BEGINS = re.compile(r"<[a-zA-Z]")
_NO_CODE = re.compile(r"""/\*.*?\*/|"[^"\n]*"|'[^'\n]*'""", re.DOTALL)


@lru_cache(maxsize=8)
def _mail_templates(pages: Environment) -> Environment:
    """Return the app's environment, but text is not HTML, and a missing value is an error."""
    return pages.overlay(
        autoescape=lambda name: name is not None and name.endswith(".html"), undefined=StrictUndefined
    )


@lru_cache(maxsize=64)
def _compile(templates: Environment, source: str) -> tuple[Template, Template]:
    # The subject is a template of its own: a line break in a value must not move the border to the body.
    first, _, rest = source.partition("\n")
    return templates.from_string(first), templates.from_string(rest.lstrip("\r\n"))


def _clean(text: str) -> str:
    """Turn what no mail may hold (control characters but tab and line break, half characters) into spaces."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", " ", text)
