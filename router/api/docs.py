"""`GET /docs`: Swagger UI for the OpenAPI document, with "Try it out" and without network access.

The assets come from the package flask-swagger-ui (0.7 MB), which follows the releases of Swagger UI; Flask is
never imported. Other packages do not fit: swagger-ui-bundle stops at 4.15, which cannot show OpenAPI 3.1;
drf-spectacular-sidecar and swagger-ui-py unpack to 10 and 25 MB; Scalar's script alone has 4.9 MB.
"""

from importlib.metadata import distribution
from pathlib import Path

from router.http import Header, Reply

# Addresses are relative, so that the page works behind a proxy that adds a path prefix.
_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Triptych API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = b"""SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
# Swagger UI's icons are data: URIs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: tuple[Header, ...] = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_JAVASCRIPT = b"text/javascript; charset=utf-8"
_ASSETS = {
    "swagger-ui-bundle.js": _JAVASCRIPT,
    "swagger-ui.css": b"text/css; charset=utf-8",
    "favicon-32x32.png": b"image/png",
}

PATHS = ("/docs", "/docs/start.js", *(f"/docs/{name}" for name in _ASSETS))


def docs(path: str) -> Reply:
    """The page, or one of its assets; `path` is one of `PATHS`. Blocks while it reads an asset."""
    name = path.removeprefix("/docs").removeprefix("/")
    if name == "":
        return Reply(200, _PAGE, b"text/html; charset=utf-8", _HEADERS)
    if name == "start.js":
        return Reply(200, _START, _JAVASCRIPT, _HEADERS)
    folder = Path(str(distribution("flask-swagger-ui").locate_file("flask_swagger_ui/dist")))
    return Reply(200, (folder / name).read_bytes(), _ASSETS[name], _HEADERS)
