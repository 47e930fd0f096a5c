"""Settings of a developer."""

from .base import *  # noqa: F403, TID252 - as Django projects split their settings

DEBUG = True
SECRET_KEY = "for developers alone"
