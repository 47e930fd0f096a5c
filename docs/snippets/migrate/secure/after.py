from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route, WebSocketRoute

from mks_hardening.asgi import CSP_NONCE_KEY, ContentSecurityPolicy, HeaderPolicy, SecurityHeadersMiddleware


async def page(request):
    nonce = request.scope[CSP_NONCE_KEY]
    return HTMLResponse(f"<script nonce='{nonce}'>document.title = 'ready'</script>")


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
POLICY = ContentSecurityPolicy(
    {
        "default-src": "'self'",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'self'",
    },
    nonce=True,
)
# The headers alone; `Hardening(starlette)` adds them together with all other wrappers.
app = SecurityHeadersMiddleware(starlette, policy=HeaderPolicy.web(csp=POLICY, frame_options="SAMEORIGIN"))
