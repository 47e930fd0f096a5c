from fastapi import FastAPI, Request, Response
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_ipaddr, get_remote_address
from starlette.middleware.sessions import SessionMiddleware


def user_or_address(request):
    return request.session.get("user") or get_remote_address(request)


def by_plan(key):
    return "4/minute" if key == "tanaka" else "2/minute"


limiter = Limiter(user_or_address, headers_enabled=True)
app = FastAPI()
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)
app.add_middleware(SessionMiddleware, secret_key="a secret of the host")


@app.post("/sign-in/{user}")
@limiter.limit("3/minute")
async def sign_in(request: Request, response: Response, user: str):
    request.session["user"] = user  # after the password was checked
    response.headers["Cache-Control"] = "no-store"


@app.get("/search")
@limiter.limit("3/minute")
async def search(request: Request, response: Response): ...


@app.get("/download")
@limiter.shared_limit("4/minute", scope="files")
async def download(request: Request, response: Response): ...


@app.get("/preview")
@limiter.shared_limit("4/minute", scope="files")
async def preview(request: Request, response: Response): ...


@app.post("/uploads")
@limiter.limit("10/minute", cost=lambda request: int(request.headers["X-Files"]))
async def upload(request: Request, response: Response): ...


@app.get("/report")
@limiter.limit(by_plan)
async def report(request: Request, response: Response): ...


@app.get("/contact")
@limiter.limit("3/minute", key_func=get_ipaddr)
async def contact(request: Request, response: Response): ...
