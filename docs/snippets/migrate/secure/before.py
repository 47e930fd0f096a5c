from secure import Secure
from secure.middleware import SecureASGIMiddleware
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route, WebSocketRoute


async def page(_request):
    return HTMLResponse("<script>document.title = 'ready'</script>")


async def map_page(_request):
    return HTMLResponse("the map", headers={"Permissions-Policy": "geolocation=(self)"})


async def broken(_request):
    raise RuntimeError("broken")


async def socket(websocket):
    await websocket.send_denial_response(HTMLResponse("sign in first", 401))


starlette = Starlette(
    routes=[
        Route("/", page),
        Route("/map", map_page),
        Route("/broken", broken),
        WebSocketRoute("/socket", socket),
    ]
)
app = SecureASGIMiddleware(starlette, secure=Secure.with_default_headers())
