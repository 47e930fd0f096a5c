from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from mks_hardening.asgi import SESSION_KEY
from mks_hardening.contrib.asgi_app import Hardening
from mks_hardening.settings import HardeningSettings


async def sign_in(request):
    await request.scope[SESSION_KEY].astart(request.path_params["user"])  # after the password was checked
    return PlainTextResponse("welcome")


async def sign_out(request):
    await request.scope[SESSION_KEY].aend()
    return PlainTextResponse("goodbye")


async def me(request):
    user = request.scope[SESSION_KEY].user_id
    return PlainTextResponse(user or "nobody", 200 if user else 401)


async def broken(_request):
    raise RuntimeError("broken")


async def socket(websocket):
    await websocket.accept()
    await websocket.close()


app = Starlette(
    routes=[
        Route("/sign-in/{user}", sign_in, methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
        Route("/me", me),
        Route("/broken", broken),
        WebSocketRoute("/socket", socket),
    ]
)
settings = HardeningSettings.from_env(
    environ={"MKS_ALLOWED_HOSTS": "www.example.com", "MKS_CORS_ORIGINS": "https://app.example.com"}
)
# In production: HardeningSettings.from_env()
Hardening(app, settings)
