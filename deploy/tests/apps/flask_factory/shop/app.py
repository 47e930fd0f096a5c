"""The application factory."""

import json
from pathlib import Path

from flask import Flask

from shop import views
from shop.extensions import db, migrate
from shop.settings import Config


def create_app(config_object=Config):
    app = Flask(__name__.split(".", maxsplit=1)[0])
    app.config.from_object(config_object)
    db.init_app(app)
    migrate.init_app(app, db)
    app.register_blueprint(views.blueprint)

    @app.cli.command("digest")
    def digest():
        """List the static files, for links that change with their content."""
        files = sorted(path.name for path in Path(app.static_folder).rglob("*.css"))
        Path(app.static_folder, "manifest.json").write_text(json.dumps(files), encoding="utf-8")

    return app
