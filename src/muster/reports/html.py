"""A report as one HTML file that needs nothing else: no network, no server.

The summary is in the markup; the cases are data, which the page's script shows a screenful at a
time. What models, files and servers have said reaches the page as escaped text or as JSON, and the
page's policy runs no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files
from typing import TextIO

from muster.reports.html_data import write_data
from muster.reports.html_summary import SECTIONS, counted
from muster.reports.overview import Overview

__all__ = ("write_html",)


def write_html(overview: Overview, out: TextIO) -> None:
    """Write the page; results are read and written one after the other."""
    style, script = (
        files("muster.reports").joinpath("page", name).read_text(encoding="utf-8")
        for name in ("report.css", "report.js")
    )
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = escape(overview.title)
    out.write(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{title} · Muster</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#grid">Skip to the results</a>\n'
        f"<header>\n<h1>{title}</h1>\n<span>{counted(overview)}</span>\n"
        '<button type="button" id="theme" class="push">Dark or light</button>\n</header>\n<main>\n'
    )
    for section in SECTIONS:
        out.write(section(overview))
    out.write(_cases(overview))
    out.write("</main>\n")
    write_data(overview, out)
    out.write(f"<script>{script}</script>\n</body>\n</html>\n")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_TITLES = (
    ("state", "state", "word"),
    ("id", "case", "word"),
    ("suite", "suite", "word"),
    ("target", "target", "word"),
    ("score", "score", "number"),
    ("cost", "cost", "number"),
    ("time", "time", "number"),
    ("tokens", "tokens", "number"),
)
"""Each column's name to the script, its title, and what it holds."""


def _cases(overview: Overview) -> str:
    selects = "".join(
        f'<label>{name} <select id="{key}"><option value="">all</option></select></label>\n'
        for name, key in (
            ("target", "target"),
            ("suite", "suite"),
            ("tag", "tag"),
            ("error", "kind"),
        )
    )
    boxes = "".join(
        f'<label class="{name}"><input type="checkbox" id="state-{name}" checked> {name}</label>\n'
        for name in ("ok", "failed", "error")
    )
    titles = "".join(
        f'<span role="columnheader" aria-sort="none" class="{kind}">'
        f'<button type="button" data-sort="{name}">{title}</button></span>'
        for name, title, kind in _TITLES
    )
    return f"""<h2 id="cases">Results</h2>
<noscript><p>The list of results needs JavaScript; the summary above does not.</p></noscript>
<div class="tools" role="search">
<input type="search" id="search" placeholder="Search ids, answers, reasons …" \
aria-label="Search in ids, inputs, answers and reasons">
{selects}<fieldset aria-label="status">{boxes}</fieldset>
<span id="count" role="status" aria-live="polite"></span>
</div>
<div class="split" id="split">
<div id="grid" role="grid" tabindex="0" aria-label="Results" aria-colcount="{len(_TITLES)}">
<div role="rowgroup"><div class="row" role="row" id="titles" aria-rowindex="1">{titles}</div></div>
<div role="rowgroup" id="body" tabindex="-1"><div id="space" role="presentation"></div></div>
<p id="none" class="soft" role="presentation" hidden>No result is like that.</p>
</div>
<section id="detail" aria-labelledby="detail-title" hidden></section>
</div>
<p class="soft"><kbd>/</kbd> search · <kbd>↑</kbd> <kbd>↓</kbd> choose · <kbd>Enter</kbd> open · \
<kbd>Esc</kbd> close · titles sort</p>
"""
