"""Settings, from the environment."""

from functools import lru_cache
from typing import ClassVar

from pydantic import AliasChoices, Field, PostgresDsn, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class CommonSettings(BaseSettings):
    model_config = SettingsConfigDict(env_file=".env", env_prefix="APP_", extra="ignore")


class Settings(CommonSettings):
    known: ClassVar[list[str]] = []

    database_url: PostgresDsn
    jwt_secret: SecretStr
    mail_key: SecretStr | None = None
    page_size: int
    log_level: str = "INFO"
    sender: str = Field(validation_alias=AliasChoices("MAIL_SENDER", "MAIL_FROM"))
    origins: list[str] = Field(default_factory=list)


@lru_cache
def get_settings():
    return Settings()
