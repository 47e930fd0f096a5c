"""Settings of a developer."""

from .base import *

DEBUG = True
SECRET_KEY = "for developers alone"
