from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mks_hardening.asgi import SESSION_KEY
from mks_hardening.contrib.asgi_app import Hardening
from mks_hardening.settings import HardeningSettings


async def basket(request):
    session = request.scope[SESSION_KEY]
    items = session.data.get("items", 0) + 1
    if session.alive:
        await session.aupdate_data(items=items)
    else:
        await session.astart_anonymous(data={"items": items})
    return PlainTextResponse(str(items))


async def sign_in(request):
    session = request.scope[SESSION_KEY]
    # After the password was checked. The id is a new one; the data are carried over on purpose.
    await session.astart(request.path_params["user"], data=session.data)
    return PlainTextResponse("welcome")


async def sign_out(request):
    await request.scope[SESSION_KEY].aend()
    return PlainTextResponse("goodbye")


async def me(request):
    user = request.scope[SESSION_KEY].user_id
    return PlainTextResponse(user or "nobody", 200 if user else 401)


async def upload(request):
    size = len(await request.body())
    await request.scope[SESSION_KEY].aupdate_data(uploaded=size)
    return PlainTextResponse(str(size))


app = Starlette(
    routes=[
        Route("/basket", basket, methods=["POST"]),
        Route("/sign-in/{user}", sign_in, methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
        Route("/me", me),
        Route("/upload", upload, methods=["POST"]),
    ]
)
settings = HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "www.example.com"})
# In production: HardeningSettings.from_env()
Hardening(app, settings)
