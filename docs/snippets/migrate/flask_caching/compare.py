import after
import before


def computed(side, calls):
    side.computed.clear()
    with side.app.app_context():
        calls(side.total)
    return len(side.computed)


def spelled_twice(total):
    total("north", 2026), total(year=2026, site="north")


def nothing_found(total):
    total("empty"), total("empty")


def two_types(total):
    total("south", 2026), total("south", "2026")


def two_years(total):
    total("east", 2025), total("east", 2026)


def facts(side):
    yield "one call in two spellings is computed", computed(side, spelled_twice)
    yield "None is computed", computed(side, nothing_found)
    yield "2026 and '2026' are computed", computed(side, two_types)
    computed(side, two_years)
    with side.app.app_context():
        side.forget("east")
    yield "after forgetting a site, its two years are computed", computed(side, two_years)
    client = side.app.test_client()
    client.set_cookie("user", "tanaka")
    client.get("/report?year=2026")
    client.set_cookie("user", "sato")
    yield "Sato sees the page", client.get("/report?year=2026").text


for (what, old), (_, new) in zip(facts(before), facts(after), strict=True):
    print(f"{what}: {old} | {new}")
