"""A page is one file that loads nothing: scripts, styles and data are inside it.

Templates extend page.html.j2, which forbids every request by a content security policy.
"""

from importlib import resources

from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

PACKAGE = "autoscaler.pages"


def render_page(template: str, **fields: object) -> str:
    """Return the page of a template as text. What is not Markup is escaped: names come from outside."""
    environment = Environment(
        loader=PackageLoader(PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    bokeh = Resources(mode="inline", components=["bokeh"])
    return environment.get_template(template).render(
        css=_ours("page.css"),
        js=Markup("\n").join((_ours("page.js"), _ours("interact.js"))),
        bokeh=Markup("\n".join(bokeh.js_raw)),  # noqa: S704  (the library)
        **fields,
    )


def _ours(name: str) -> Markup:
    text = (resources.files(PACKAGE) / "templates" / name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704
