"""Go's text/template, as ark's users write it: compiled once, bounded, and closed to the outside.

A template sees mappings, lists and scalars, never a Python object. A path that is not there is an
error that names it, unless the template is rendered leniently.
"""

from __future__ import annotations

from muster.teams.template.errors import TemplateError
from muster.teams.template.template import Template

__all__ = ("Template", "TemplateError")
