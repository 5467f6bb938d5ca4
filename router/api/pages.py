"""Static pages: the page at `/`, and Swagger UI at `/docs`. Both work without network access.

Swagger UI comes from the package flask-swagger-ui, which is small (0.7 MB) and follows its releases; Flask is
never imported.
"""

from functools import cache
from importlib.metadata import distribution
from pathlib import Path

from triptych.router.http import Header, Reply

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: tuple[Header, ...] = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".png": b"image/png",
}
_OWN = Path(__file__).parent / "page"

# The files of each path; Swagger UI's are found at the first request. Addresses in them are relative, so that
# pages work behind a proxy that adds a path prefix.
PAGE_PATHS = {"/": "index.html", "/page/page.css": "page.css", "/page/page.js": "page.js"}
_SWAGGER_PATHS = {
    f"/docs/{name}": name for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
}
DOCS_PATHS = {"/docs": "docs.html", "/docs/start.js": "docs.js", **_SWAGGER_PATHS}


@cache
def static(path: str) -> Reply:
    """The file at `path`, one of `PAGE_PATHS` or `DOCS_PATHS`. It is read once, which blocks."""
    folder = _OWN
    if path in _SWAGGER_PATHS:
        folder = Path(str(distribution("flask-swagger-ui").locate_file("flask_swagger_ui/dist")))
    file = folder / {**PAGE_PATHS, **DOCS_PATHS}[path]
    return Reply(200, file.read_bytes(), _TYPES[file.suffix], _HEADERS)
