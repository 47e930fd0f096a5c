import importlib
import logging
import re


class Lines(logging.Handler):
    """Keeps the log records of one request."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def toolbar(response, _):
    """What the panel of the page shows: number of statements, N+1, and all of it."""
    text = response.get_data(as_text=True)
    shown = re.search(r"(\d+) quer(y|ies)", text)
    return shown[1] if shown else "nothing", "none", text


def watch(_, lines):
    """What the log has after the request."""
    number, *findings = lines.texts
    found = re.search(r"(\d+ times) .*(selectinload)", findings[0]) if findings else None
    return number.split()[0], " ".join(found.groups()) if found else "none", str(lines.texts)


def facts(name, look):
    module = importlib.import_module(name)
    with module.app.app_context():
        module.db.create_all()
        authors = [module.Author(id=number, name=f"author {number}") for number in (1, 2, 3)]
        module.db.session.add_all([*authors, *(module.Article(author_id=number) for number in (1, 2, 3))])
        module.db.session.commit()

    def ask(path, method="GET"):
        lines = Lines()
        logger = logging.getLogger("articles")
        logger.setLevel(logging.INFO)
        logger.addHandler(lines)
        response = module.app.test_client().open(path, method=method)
        logger.removeHandler(lines)
        return look(response, lines)

    statements, found, _ = ask("/articles")
    yield "statements of a list", statements
    number, _, text = ask("/author/1")
    yield "statements of one author", number
    yield "statements of a POST", ask("/articles", "POST")[0]
    yield "statements of a list with one more", ask("/articles")[0]
    yield "statements of another author", ask("/author/2")[0]
    yield "statements of JSON", ask("/count")[0]
    yield "statements of an author that is missing", ask("/author/9")[0]
    yield "N+1 of the list", found
    yield "links that run the statements again", "sql_explain" in text


for (what, old), (_, new) in zip(facts("before", toolbar), facts("after", watch), strict=True):
    print(f"{what}: {old} | {new}")
