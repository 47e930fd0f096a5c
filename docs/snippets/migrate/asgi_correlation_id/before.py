import io
import logging

from asgi_correlation_id import CorrelationIdFilter, CorrelationIdMiddleware, correlation_id
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

log = logging.getLogger("before")
log.setLevel("INFO")
output = io.StringIO()  # sys.stderr in production
handler = logging.StreamHandler(output)
handler.addFilter(CorrelationIdFilter())
handler.setFormatter(logging.Formatter("%(correlation_id)s %(message)s"))
log.addHandler(handler)


async def page(request):
    await request.body()
    log.info("page of %s", request.query_params["user"])
    return PlainTextResponse(correlation_id.get())


async def own_id(_request):
    return PlainTextResponse("", headers={"X-Request-ID": "set-by-the-view"})


async def broken(_request):
    raise RuntimeError("broken")


async def socket(websocket):
    await websocket.accept()
    await websocket.send_text(correlation_id.get())
    await websocket.close()


app = Starlette(
    routes=[
        Route("/", page),
        Route("/own-id", own_id),
        Route("/broken", broken),
        WebSocketRoute("/socket", socket),
    ],
    middleware=[Middleware(CorrelationIdMiddleware)],
)
