import asyncio

import after
import before
import httpx

SITE = "https://www.example.com"


class Browser(httpx.AsyncClient):
    def __init__(self, app, address="192.0.2.1", cookies=None):
        transport = httpx.ASGITransport(app, client=(address, 50_000))
        super().__init__(transport=transport, base_url=SITE, headers={"Origin": SITE}, cookies=cookies)

    def copy(self, app):  # the same cookies, somewhere else
        return Browser(app, "198.51.100.7", httpx.Cookies(self.cookies))

    async def posts(self, *paths):
        return " ".join([(await self.post(path)).text for path in paths])

    async def me(self):
        answer = await self.get("/me")
        return answer.text if answer.status_code == 200 else answer.status_code


async def facts(app):
    found = {}
    name = "__Host-mks-session" if app is after.app else "session"
    tanaka, sato = Browser(app), Browser(app, "192.0.2.2")
    found["baskets of two visitors"] = await tanaka.posts("/basket", "/basket"), await sato.posts("/basket")
    await tanaka.posts("/sign-in/tanaka")
    await sato.posts("/sign-in/sato")
    found["who they are after signing in"] = await tanaka.me(), await sato.me()
    found["their baskets go on"] = await tanaka.posts("/basket"), await sato.posts("/basket")
    found["a visitor without a cookie"] = await Browser(app).me()
    await sato.posts("/sign-out")
    found["after Sato signed out"] = await tanaka.me(), await sato.me()

    # From here on, they differ on purpose.
    stolen = tanaka.copy(app)
    await tanaka.posts("/sign-in/suzuki")
    found["a copy of the id from before another sign-in"] = await stolen.me()
    stolen = tanaka.copy(app)

    async def slow_body():
        yield b"the first half"
        await tanaka.posts("/sign-out")  # at the same time, in another tab
        yield b"the second half"

    await tanaka.copy(app).post("/upload", content=slow_body())
    found["a copy, after signing out during an upload"] = await stolen.me()
    fixed = Browser(app, cookies={name: "chosen-by-somebody-else"})
    answer = await fixed.post("/basket")
    found["an id that a client chose is adopted"] = "chosen-by-somebody-else" in answer.headers["Set-Cookie"]
    reader = Browser(app)
    await reader.posts("/basket")
    found["a request that only reads sets a cookie"] = "Set-Cookie" in (await reader.get("/me")).headers
    return found


old, new = asyncio.run(facts(before.app)), asyncio.run(facts(after.app))
for what in old:
    print(f"{what}: {old[what]} | {new[what]}")
