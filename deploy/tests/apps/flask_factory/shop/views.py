"""Pages."""

from flask import Blueprint, current_app

from shop.extensions import db
from shop.models import Item

blueprint = Blueprint("shop", __name__)


@blueprint.get("/")
def index():
    db.session.add(Item(name="nail"))
    db.session.commit()
    names = db.session.scalars(db.select(Item.name).limit(current_app.config["ITEMS_PER_PAGE"]))
    return f"items: {', '.join(names)}"


@blueprint.get("/healthz")
def healthz():
    return "ok"
