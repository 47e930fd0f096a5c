"""Pages."""

import time

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path


def order(request):
    if request.method == "POST":
        return HttpResponseRedirect(f"/ordered/{request.POST['item']}/")
    return render(request, "order.html")


def ordered(request, item):
    return HttpResponse(f"ordered {item}")


def slow(request):
    time.sleep(0.02)
    return HttpResponse("slept")


def who(request):
    return HttpResponse(f"{request.META['HTTP_X_FORWARDED_FOR']} {request.scheme}")


urlpatterns = [
    path("", order),
    path("ordered/<slug:item>/", ordered),
    path("who", who),
    path("slow", slow),
    path("health/ready", lambda request: HttpResponse("ok")),
    path("up", lambda request: HttpResponse("ok")),
]
