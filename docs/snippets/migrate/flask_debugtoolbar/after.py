import logging

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from mks_hardening.db import watch_queries

app = Flask(__name__)
app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://")
db = SQLAlchemy(app)
with app.app_context():
    engine = db.engine
log = logging.getLogger("articles")


def watched(application):
    """Log the number of statements of each request, and its N+1; for development."""

    def watch(environ, start_response):
        with watch_queries(engine) as queries:
            body = [b"".join(application(environ, start_response))]
        log.info("%d statements", len(queries.statements))
        for found in queries.n_plus_one:
            log.warning("%d times at %s: %s", found.times, found.caller, found.hint)
        return body

    return watch


app.wsgi_app = watched(app.wsgi_app)


class Author(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(80))


class Article(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    author_id = db.Column(db.ForeignKey("author.id"))
    author = db.relationship("Author")


@app.get("/articles")
def articles():
    found = db.session.scalars(db.select(Article))
    return f"<body>{', '.join(article.author.name for article in found)}</body>"


@app.get("/author/<int:number>")
def author(number):
    return f"<body>{db.get_or_404(Author, number).name}</body>"


@app.get("/count")
def count():
    return {"articles": db.session.scalar(db.select(db.func.count()).select_from(Article))}


@app.post("/articles")
def add():
    db.session.add(Article(author_id=1))
    db.session.commit()
    return "<body>added</body>"
