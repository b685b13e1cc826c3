"""The templates of mails: a subject and a text, and the HTML beside it with its CSS where mail programs want it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from flask import current_app
from jinja2 import Environment, StrictUndefined, Template, TemplateNotFound, TemplateSyntaxError, meta

from app.kit.errors import InvalidInputError, PostroomError
from app.kit.plain_text import NOT_TEXT

MAX_SUBJECT = 500
"""Characters, the rest is cut off: SMTP ends a line at 998. Source: RFC 5321 4.5.3.1.6"""

MAX_STYLED_TAGS = 2000
"""The inliner goes down one level of the stack a nested tag and has no floor: it would take the process along."""


class EmailTemplateError(PostroomError):
    """A mail's template is missing, or is none."""

    code = "bad_email_template"


class EmailValueError(EmailTemplateError):
    """A mail's template cannot be rendered with what it was given; with other values it may."""


def render_text(name: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """Render a .txt template; return its first line, the subject, and the text below.

    Raises: EmailTemplateError.
    """
    templates = _mail_templates(current_app.jinja_env)
    try:
        assert templates.loader is not None
        first, body = _compile(templates, templates.loader.get_source(templates, name)[0])
        subject, text = header_line(first.render(values), MAX_SUBJECT), _clean(body.render(values))
    except TemplateNotFound as error:
        raise EmailTemplateError(
            f"app/templates/{error.name} does not exist. Write it: the subject in the first line, an empty "
            "line, then the text."
        ) from error
    except Exception as error:
        raise _cannot_be_rendered(name, error) from error
    if not subject:
        raise EmailValueError(f"app/templates/{name} has an empty first line: it is the mail's subject.")
    return subject, text


def render_html(name: str, values: Mapping[str, Any]) -> str | None:
    """Render a .html template, if there is one; its <style> ends up in style attributes.

    Raises: EmailTemplateError.
    """
    templates = _mail_templates(current_app.jinja_env)
    try:
        html = _clean(templates.get_template(name).render(values))
    except Exception as error:
        if isinstance(error, TemplateNotFound) and error.name == name:
            return None
        raise _cannot_be_rendered(name, error) from error
    return _inline_css(name, html)


def refuse_unused(template: str, names: Iterable[str], options: Iterable[str] = ()) -> None:
    """Refuse a keyword that is no value of the template: a mistyped option would be dropped without a word.

    Raises: InvalidInputError.
    """
    used = _values_of(template)
    for name in names:
        if used is None or name in used:
            continue
        near = get_close_matches(name, [*options, *used], n=1)
        advice = f"did you mean {near[0]}=?" if near else f"there are {', '.join([*options, *sorted(used)])}."
        raise InvalidInputError(
            f"{name}= is no option, and app/templates/emails/{template}.txt (or .html) does not use it: {advice}",
            name,
        )


def _cannot_be_rendered(name: str, error: Exception) -> EmailTemplateError:
    if isinstance(error, PostroomError):
        raise error
    is_for_all = isinstance(error, (TemplateSyntaxError, TemplateNotFound))
    what = f"{error}" if str(error) else type(error).__name__
    return (EmailTemplateError if is_for_all else EmailValueError)(f"app/templates/{name}: {what}")


def _values_of(template: str) -> set[str] | None:
    """Return the names that a mail's templates use, with what they include; None if only rendering can tell."""
    templates, used = _mail_templates(current_app.jinja_env), set[str]()
    assert templates.loader is not None
    waiting, seen = [f"emails/{template}.txt", f"emails/{template}.html"], set[str]()
    while waiting:
        if (name := waiting.pop()) in seen:
            continue
        seen.add(name)
        try:
            names, included = _names_in(templates, templates.loader.get_source(templates, name)[0])
        except (TemplateNotFound, TemplateSyntaxError):
            if name == f"emails/{template}.html":
                continue
            return None  # rendering says what is wrong
        if None in included:
            return None
        used |= names
        waiting += [other for other in included if other]
    return used


@lru_cache(maxsize=64)
def _names_in(templates: Environment, source: str) -> tuple[set[str], tuple[str | None, ...]]:
    tree = templates.parse(source)
    return meta.find_undeclared_variables(tree), tuple(meta.find_referenced_templates(tree))


def header_line(text: str, most: int) -> str:
    """Put a text on one line of at most so many characters."""
    line = " ".join(_clean(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _inline_css(name: str, html: str) -> str:
    # Many mail programs ignore <style>, so rules go to the tags they mean. What no tag can hold stays: @media,
    # :hover, a sheet for paper or for phones.
    html = _STYLE_TAG.sub(
        _keep_if_for_some, _OUTLOOK_IF.sub(r"<!--\1><!-->", _OUTLOOK_END.sub("<!--<![endif]-->", html))
    )
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
        raise EmailValueError(f"app/templates/{name}: {problem}")
    import css_inline  # here, for it takes 2 MB

    # It fetches and opens nothing: what a template names by address stays an address.
    inliner = css_inline.CSSInliner(
        load_remote_stylesheets=False, keep_style_tags=True, keep_at_rules=True, remove_inlined_selectors=True
    )
    try:
        return _EMPTY_STYLE.sub("", inliner.inline(html))
    except css_inline.InlineError as error:
        raise EmailValueError(f"app/templates/{name}: its CSS cannot be used: {error}") from error


def _keep_if_for_some(tag: re.Match[str]) -> str:
    media = _MEDIA.search(tag[0])
    kinds = media[1].strip("\"'").lower().split(",") if media else ["all"]
    is_for_all = any(kind.strip() in ("", "all", "screen") for kind in kinds)
    return tag[0] if is_for_all else f'{tag[0][:-1]} data-css-inline="ignore">'


_STYLE_BEGINS = re.compile(r"<style\b", re.IGNORECASE)
_STYLE = re.compile(r"<style\b[^>]*>(.*?)</style\s*>", re.IGNORECASE | re.DOTALL)
_EMPTY_STYLE = re.compile(r"<style\b[^>]*>\s*</style>", re.IGNORECASE)
_STYLE_TAG = re.compile(r"<style\b[^>]*>", re.IGNORECASE)
_MEDIA = re.compile(r"""(?<![\w-])media\s*=\s*("[^"]*"|'[^']*'|[^\s>]+)""", re.IGNORECASE)
# Parts that Outlook leaves out: as a comment in a comment, or writing the HTML anew would end their meaning.
_OUTLOOK_IF = re.compile(r"<!(\[if [^\]>]*\])>", re.IGNORECASE)
_OUTLOOK_END = re.compile(r"<!\[endif\]>", re.IGNORECASE)
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
    return NOT_TEXT.sub(" ", text)  # no mail may hold it
