"use strict";
// Serves copies of articles without network access, only to the user who stored them. Before anybody
// signs in or out, all of them are deleted. While the network works, it affects neither the API nor any page.
const SHELF = "shell";
const OWNER = "/offline/owner";
const GOOD_FOR = 7 * 24 * 3600 * 1000;

const isOurs = (name) => name === "owner" || name.startsWith("copies:");
const wipe = async () => {
  const names = await caches.keys();
  await Promise.all(names.filter(isOurs).map((name) => caches.delete(name)));
};
// Without files, which not every browser passes on. A failed form leads to a page whose reload does not resend it.
const isForm = (request) =>
  request.mode === "navigate" && request.headers.get("Content-Type") === "application/x-www-form-urlencoded";

const kept = async (path) => {
  const owner = await (await caches.open("owner")).match(OWNER);
  const article = /^\/articles\/[1-9][0-9]*(?=\/?(?:offline)?$)/.exec(path);
  if (owner && article) {
    const copy = await (await caches.open(`copies:${await owner.text()}`)).match(`${article[0]}/offline`);
    if (copy && Date.now() - Date.parse(copy.headers.get("Date") || "") < GOOD_FOR) return copy;
  }
  return (await (await caches.open(SHELF)).match("/offline")) || Response.error();
};

self.addEventListener("install", (event) => {
  const anonymous = SHELL.map((url) => new Request(url, { credentials: "omit", cache: "reload" }));
  event.waitUntil(
    caches.delete(SHELF).then(() => caches.open(SHELF)).then((shelf) => shelf.addAll(anonymous)).then(() => self.skipWaiting()),
  );
});
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (url.origin !== self.location.origin) return;
  const leaves = /^\/(?:sign-in|sign-out|password)(?:\/|$)/.test(url.pathname);
  if (request.method === "POST" && (leaves || isForm(request))) {
    const sent = (leaves ? wipe().catch(() => undefined) : Promise.resolve()).then(() => fetch(request));
    event.respondWith(isForm(request) ? sent.catch(() => Response.redirect("/offline?unsent", 303)) : sent);
  } else if (request.method === "GET" && request.mode === "navigate") {
    event.respondWith(fetch(request).catch(() => kept(url.pathname)));
  } else if (request.method === "GET" && url.pathname.startsWith("/static/")) {
    event.respondWith(
      fetch(request).catch(async () => (await (await caches.open(SHELF)).match(request, { ignoreSearch: true })) || Response.error()),
    );
  }
});
