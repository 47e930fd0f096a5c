"""pygeoapi publishes geographic data: maps and API documentation from a CDN, on Starlette."""

from __future__ import annotations

from compatibility_walks import Application, Visit

_CONFIG = """
server:
  bind: {host: 127.0.0.1, port: 5000}
  url: ${APPLICATION_URL}
  mimetype: application/json; charset=UTF-8
  encoding: utf-8
  gzip: false
  languages: [en-US]
  cors: true
  pretty_print: true
  limits: {default_items: 20, max_items: 50}
  map:
    url: https://tile.openstreetmap.org/{z}/{x}/{y}.png
    attribution: OpenStreetMap
logging: {level: ERROR}
metadata:
  identification:
    title: Site
    description: Places
    keywords: [places]
    terms_of_service: none
    url: https://example.com
  license: {name: CC0, url: https://example.com}
  provider: {name: Site, url: https://example.com}
  contact: {name: Ann, email: ann@example.com}
resources:
  places:
    type: collection
    title: Places
    description: Places
    keywords: [places]
    extents:
      spatial: {bbox: [-180, -90, 180, 90], crs: "http://www.opengis.net/def/crs/OGC/1.3/CRS84"}
    providers:
      - type: feature
        name: GeoJSON
        data: places.geojson
        id_field: id
  hello-world:
    type: process
    processor: {name: HelloWorld}
"""
_PLACES = (
    '{"type": "FeatureCollection", "features": [{"type": "Feature", "id": "1", "properties": {"name": "Nara"}, '
    '"geometry": {"type": "Point", "coordinates": [135.8, 34.7]}}]}'
)


def walk(visit: Visit) -> None:
    pages = {
        "front page": "/?f=html",
        "collections": "/collections?f=html",
        "collection": "/collections/places?f=html",
        "items on a map": "/collections/places/items?f=html",
        "item": "/collections/places/items/1?f=html",
        "queryables": "/collections/places/queryables?f=html",
        "processes": "/processes?f=html",
        "process": "/processes/hello-world?f=html",
        "jobs": "/jobs?f=html",
        "conformance": "/conformance?f=html",
        "API documentation": "/openapi?f=html",
    }
    for name, path in pages.items():
        with visit.step(name):
            visit.go(path)
            visit.page.locator("main, #swagger-ui").first.wait_for(state="attached")
    with visit.step("run a process"):
        body = {"inputs": {"name": "Ann"}}
        visit.send("POST", "/processes/hello-world/execution", expect=200, data=body)
    with visit.step("run a process from a page's script"):
        visit.go("/processes/hello-world?f=html")
        headers = {"Content-Type": "application/json"}
        body = '{"inputs": {"name": "Ann"}}'
        visit.fetch("/processes/hello-world/execution", method="POST", body=body, headers=headers)
    with visit.step("GeoJSON of another program"):
        found = visit.send("GET", "/collections/places/items?f=json&name=Nara", expect=200)
        assert found.json()["numberMatched"] == 1


APPLICATION = Application(
    name="pygeoapi",
    distribution="pygeoapi",
    kind="asgi",
    framework="Starlette",
    files={"config.yml": _CONFIG, "places.geojson": _PLACES},
    start="""
import os
from pathlib import Path

os.environ["PYGEOAPI_CONFIG"] = str(Path(__file__).with_name("config.yml"))
os.environ["PYGEOAPI_OPENAPI"] = str(Path(__file__).with_name("openapi.yml"))

from pygeoapi.openapi import generate_openapi_document

document = generate_openapi_document(Path(os.environ["PYGEOAPI_CONFIG"]), "yaml")
Path(os.environ["PYGEOAPI_OPENAPI"]).write_text(document)

from pygeoapi.starlette_app import APP as app
""",
    walk=walk,
    headers="""\
csp.style-src = ["'unsafe-inline'", "https://unpkg.com"]
csp.script-src-elem = [
    "'sha256-dzRSOSVa/OOjRNIWrDvoVqQYEnTS2Tus70GTZDpV6Pc='",
    "'sha256-3zg+KewLmQIfK0J6gFCdMI63PVTaFFYHcbKwGHV5bvY='",
]
csp.img-src = ["https://unpkg.com", "https://tile.openstreetmap.org"]

["/collections/"]
csp.script-src-elem = ["'unsafe-inline'", "https://unpkg.com"]

["/openapi"]
csp.script-src-elem = ["'unsafe-inline'", "https://unpkg.com"]
""",
    looser=(
        "Maps of unpkg.com and OpenStreetMap; styles in pages, and scripts with the data below `/collections/`",
        "unpkg.com と OpenStreetMap の地図、ページ内のスタイル、`/collections/` 以下のデータを含むスクリプトを許可",
    ),
    page="/collections/places/items?f=html",
)
