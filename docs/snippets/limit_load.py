import asyncio

from mks_hardening.asgi import request_deadline
from mks_hardening.compose import harden_asgi
from mks_hardening.settings import HardeningSettings


async def application(scope, _receive, send):
    seconds = float(scope["query_string"] or 0)
    print(f"{request_deadline(scope).timeout(at_most=10):.0f} s for the next query")
    await asyncio.sleep(seconds)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


settings = HardeningSettings.from_env(
    environ={"MKS_ENV": "development", "MKS_MAX_REQUESTS": "2", "MKS_REQUEST_TIMEOUT": "2s"}
)
app = harden_asgi(application, settings, concurrency_wait=0)


async def status(path="/", query=""):
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode()}
    scope |= {"headers": [(b"host", b"localhost")], "client": ("203.0.113.7", 1)}
    sent = []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"]


async def main():
    print("slow:", await status(query="60"))
    slow = [asyncio.create_task(status(query="1")) for _ in range(2)]
    await asyncio.sleep(0.1)
    print("third at once:", await status(), "health:", await status("/livez"))
    print("the first two:", await asyncio.gather(*slow))


asyncio.run(main())
