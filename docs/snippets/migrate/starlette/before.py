from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute


async def headers(request, call_next):
    response = await call_next(request)
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


async def sign_in(request):
    request.session["user"] = request.path_params["user"]  # after the password was checked
    return PlainTextResponse("welcome")


async def sign_out(request):
    request.session.clear()
    return PlainTextResponse("goodbye")


async def me(request):
    user = request.session.get("user")
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
    ],
    middleware=[
        Middleware(HTTPSRedirectMiddleware),
        Middleware(TrustedHostMiddleware, allowed_hosts=["www.example.com"]),
        Middleware(CORSMiddleware, allow_origins=["https://app.example.com"], allow_methods=["PUT"]),
        Middleware(SessionMiddleware, secret_key="a secret of the host", https_only=True),
        Middleware(BaseHTTPMiddleware, dispatch=headers),
    ],
)
