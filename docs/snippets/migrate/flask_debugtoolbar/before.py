from flask import Flask
from flask_debugtoolbar import DebugToolbarExtension
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config.update(
    DEBUG_TB_PANELS=["flask_debugtoolbar.panels.sqlalchemy.SQLAlchemyDebugPanel"],
    SECRET_KEY="only on this machine",
    SQLALCHEMY_DATABASE_URI="sqlite://",
    SQLALCHEMY_RECORD_QUERIES=True,
)
app.debug = True
db = SQLAlchemy(app)
toolbar = DebugToolbarExtension(app)


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
