from app import app

from mks_hardening.testing import call_wsgi


def ask(path, method="GET", **cookies):
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    answer = call_wsgi(app, path, method=method, scheme="https", headers={"Cookie": cookie})
    given = [value.partition(";")[0].partition("=") for name, value in answer.headers if name == "Set-Cookie"]
    body = answer.body.decode() if answer.status == 200 else answer.status
    return body, {**cookies, **{name: value for name, _, value in given}}


_, cookies = ask("/sign-in", "POST")
page, cookies = ask("/basket/helmet", **cookies)
print("signed in, the basket of", page)
flask_cookie = cookies["session"]
ask("/sign-out", "POST", **cookies)
page, _ = ask("/basket/boots", session=flask_cookie)
print("with a stolen cookie of Flask alone, the basket of", page)
page, _ = ask("/basket/boots", **cookies)
print("with both cookies:", page)
