import after
import before
import fakeredis

from mks_hardening.testing import call_wsgi

redis = fakeredis.FakeRedis()
old_app, new_app = before.create_app(redis), after.create_app(redis)
PAGE = {"Host": "localhost", "Sec-Fetch-Site": "same-origin"}


class Browser:
    def __init__(self, **cookies):
        self.cookies = cookies

    def post(self, app, path):
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = call_wsgi(app, path, method="POST", scheme="https", headers={**PAGE, "Cookie": cookies})
        for name, value in answer.headers:
            if name == "Set-Cookie":
                cookie, _, kept = value.partition(";")[0].partition("=")
                self.cookies[cookie] = kept
        return answer.body.decode() if answer.status == 200 else str(answer.status)

    def id(self):
        return self.cookies.get("__Host-mks-session", self.cookies.get("session"))


def facts(app):
    browser = Browser()
    browser.post(app, "/basket/helmet")
    first = browser.id()
    browser.post(app, "/sign-in")
    yield "the id is a new one after the sign-in", browser.id() != first
    yield "the basket is still there", browser.post(app, "/basket/gloves")
    stolen = Browser(**browser.cookies)
    browser.post(app, "/sign-out")
    yield "a copy of the cookie, after the sign-out", stolen.post(app, "/basket/boots")


for (what, old), (_, new) in zip(facts(old_app), facts(new_app), strict=True):
    print(f"{what}: {old} | {new}")

tanaka = Browser()
tanaka.post(old_app, "/sign-in")
tanaka.post(old_app, "/basket/helmet")
thief = Browser(**tanaka.cookies)
print("from the old session:", tanaka.post(new_app, "/basket/gloves"))
print("and once more:", tanaka.post(new_app, "/basket/boots"))
print("the old cookie alone:", thief.post(new_app, "/basket/boots"))
