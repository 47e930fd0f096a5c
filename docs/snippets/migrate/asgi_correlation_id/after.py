import io
import logging

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from mks_hardening.asgi import REQUEST_ID_KEY
from mks_hardening.contrib.asgi_app import Hardening
from mks_hardening.logging import ContextFilter
from mks_hardening.settings import HardeningSettings

log = logging.getLogger("after")
log.setLevel("INFO")
output = io.StringIO()  # sys.stderr in production
handler = logging.StreamHandler(output)
handler.addFilter(ContextFilter())  # setup_logging does this, and writes JSON
handler.setFormatter(logging.Formatter("%(request_id)s %(message)s"))
log.addHandler(handler)


async def page(request):
    await request.body()
    log.info("page of %s", request.query_params["user"])
    return PlainTextResponse(request.scope[REQUEST_ID_KEY])


async def own_id(_request):
    return PlainTextResponse("", headers={"X-Request-ID": "set-by-the-view"})


async def broken(_request):
    raise RuntimeError("broken")


async def socket(websocket):
    await websocket.accept()
    await websocket.send_text(websocket.scope[REQUEST_ID_KEY])
    await websocket.close()


app = Starlette(
    routes=[
        Route("/", page),
        Route("/own-id", own_id),
        Route("/broken", broken),
        WebSocketRoute("/socket", socket),
    ]
)
settings = HardeningSettings.from_env(
    environ={"MKS_ALLOWED_HOSTS": "www.example.com", "MKS_TRUSTED_PROXIES": "10.0.0.0/8"}
)
# In production: HardeningSettings.from_env()
Hardening(app, settings)
