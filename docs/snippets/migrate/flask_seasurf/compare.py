import after
import before

SITE = "https://www.example.com"
OURS = {"Referer": f"{SITE}/", "Origin": SITE}
THEIRS = {"Referer": "https://evil.test/", "Origin": "https://evil.test"}


def facts(side):
    browser = side.app.test_client()

    def token():
        return browser.get("/", base_url=SITE).text

    def post(headers, path="/save", who=browser, **body):
        return who.post(path, base_url=SITE, headers=headers, **body).status_code

    field, header = side.TOKEN_FIELD, side.TOKEN_HEADER
    yield "our page, token in the form", post(OURS, data={field: token()})
    yield "our page, token in the header", post({**OURS, header: token()})
    yield "our page, token in JSON", post(OURS, json={field: token()})
    yield "another site's page, no token", post(THEIRS)
    yield "another site's page, to the exempt view", post(THEIRS, "/hook")
    yield "no Origin and no Referer, no token", post({})
    yield "no Origin and no Referer, wrong token", post({}, data={field: "guess"})
    stranger = side.app.test_client()
    stranger.get("/", base_url=SITE)
    yield "the token of another browser", post({}, who=stranger, data={field: token()})
    yield "our page, no token", post(OURS)
    yield "no Origin and no Referer, with the token", post({}, data={field: token()})
    yield "two pages have the same token", token() == token()
    cookies = " ".join(side.app.test_client().get("/", base_url=SITE).headers.getlist("Set-Cookie"))
    yield "the cookie has the prefix __Host-", "__Host-" in cookies


for (what, old), (_, new) in zip(facts(before), facts(after), strict=True):
    print(f"{what}: {old} | {new}")
