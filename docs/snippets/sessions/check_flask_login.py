from app import app, factors

from mks_hardening.security import totp_code

enrolment = factors.begin_enrolment("7", account_name="tanaka")
codes = factors.confirm_enrolment("7", totp_code(enrolment.secret))
browser, thief = app.test_client(), app.test_client()


def post(path, **form):
    return browser.post(path, data=form, headers={"Sec-Fetch-Site": "same-origin"})


print("a wrong password:", post("/sign-in", name="tanaka", password="x").status_code)
print("the right one:", post("/sign-in", name="tanaka", password="坂の上の 足場").json)
print("nobody is signed in yet:", browser.get("/").status_code)
print("a recovery code:", post("/second-factor", code=codes[0]).json)
print("signed in:", browser.get("/").json)
thief.set_cookie("mks-session", browser.get_cookie("mks-session").value)
print("sign-out:", post("/sign-out").status_code)
print("a copy of the cookie afterwards:", thief.get("/").status_code)
