from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

from mks_hardening.contrib.fastapi_app import Hardening
from mks_hardening.settings import HardeningSettings

SWAGGER = "https://cdn.jsdelivr.net"
POLICY = (
    f"default-src 'self'; script-src {SWAGGER} 'unsafe-inline'; style-src {SWAGGER}; img-src 'self' data:"
)

settings = HardeningSettings.from_env(environ={"MKS_ENV": "development"})  # from_env() in production
app = FastAPI(docs_url=None, redoc_url=None)
Hardening(app, settings)

if settings.core.environment == "development":

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(openapi_url="/openapi.json", title=app.title)
        page.headers["Content-Security-Policy"] = POLICY
        return page
