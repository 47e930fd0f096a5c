from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starsessions import InMemoryStore, SessionAutoloadMiddleware, SessionMiddleware
from starsessions.session import regenerate_session_id


async def basket(request):
    request.session["items"] = request.session.get("items", 0) + 1
    return PlainTextResponse(str(request.session["items"]))


async def sign_in(request):
    request.session["user"] = request.path_params["user"]  # after the password was checked
    regenerate_session_id(request)
    return PlainTextResponse("welcome")


async def sign_out(request):
    request.session.clear()
    return PlainTextResponse("goodbye")


async def me(request):
    user = request.session.get("user")
    return PlainTextResponse(user or "nobody", 200 if user else 401)


async def upload(request):
    size = len(await request.body())
    request.session["uploaded"] = size
    return PlainTextResponse(str(size))


app = Starlette(
    routes=[
        Route("/basket", basket, methods=["POST"]),
        Route("/sign-in/{user}", sign_in, methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
        Route("/me", me),
        Route("/upload", upload, methods=["POST"]),
    ],
    middleware=[
        Middleware(SessionMiddleware, store=InMemoryStore(), lifetime=3600, rolling=True),
        Middleware(SessionAutoloadMiddleware),
    ],
)
