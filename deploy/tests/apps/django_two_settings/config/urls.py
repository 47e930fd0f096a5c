"""Addresses."""

from catalog.models import Item
from django.conf import settings
from django.contrib import admin
from django.http import HttpResponse
from django.urls import path


def index(request):
    Item.objects.create(name="nail")
    return HttpResponse(f"items: {', '.join(Item.objects.values_list('name', flat=True)[:20])}")


urlpatterns = [
    path("", index),
    path("healthz/", lambda request: HttpResponse("ok")),
    path(settings.ADMIN_URL, admin.site.urls),
]
