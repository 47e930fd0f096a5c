"""Settings, from the environment."""

import os
from pathlib import Path

BASE = Path(__file__).resolve().parent.parent


class Config:
    SECRET_KEY = os.environ.get("SECRET_KEY") or "you-will-never-guess"
    SQLALCHEMY_DATABASE_URI = os.environ.get("DATABASE_URL", "").replace(
        "postgres://", "postgresql://"
    ) or "sqlite:///" + str(BASE / "app.db")
    MAIL_SERVER = os.environ.get("MAIL_SERVER")
    MAIL_PASSWORD = os.environ.get("MAIL_PASSWORD", "")
    ITEMS_PER_PAGE = int(os.environ["ITEMS_PER_PAGE"])


class TestConfig(Config):
    SQLALCHEMY_DATABASE_URI = os.environ.get("TEST_DATABASE_URL", "sqlite://")
