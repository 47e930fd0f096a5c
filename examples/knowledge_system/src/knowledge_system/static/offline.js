// Keeps copies of the articles that were opened last and of the favourites, under the person who read them.
(() => {
  "use strict";
  if (!("serviceWorker" in navigator) || !("caches" in window)) return;
  const OWNER = "/offline/owner";
  const FAVOURITES = "/offline/favourites";
  const MOST_OPENED = 30;
  const MOST_FAVOURITES = 50;
  const user = document.body.dataset.user;
  let leaving = false;
  for (const form of document.querySelectorAll('form[action="/sign-out"]')) {
    form.addEventListener("submit", () => { leaving = true; });
  }

  const wipe = async () => {
    const names = await caches.keys();
    await Promise.all(names.filter((name) => name === "owner" || name.startsWith("copies:")).map((name) => caches.delete(name)));
  };
  const owner = async () => {
    const found = await (await caches.open("owner")).match(OWNER);
    return found ? found.text() : "";
  };
  const claim = async () => {
    if ((await owner()) === user || leaving) return;
    await wipe();
    await (await caches.open("owner")).put(OWNER, new Response(user));
  };
  const keep = async (path) => {
    const answer = await fetch(path, { cache: "no-store", headers: { Accept: "text/html" } });
    if (leaving) return;
    const copies = await caches.open(`copies:${user}`);
    await copies.delete(path);
    // Another user may have signed in or out in another tab meanwhile.
    if (!answer.ok || answer.headers.get("Offline-Copy") !== user) return;
    await copies.put(path, answer);
    if ((await owner()) !== user) await caches.delete(`copies:${user}`);
  };
  const articlesIn = async (copies) => (await copies.keys()).map((one) => new URL(one.url).pathname).filter((path) => path !== FAVOURITES);
  const favourites = async (copies) => {
    const found = await copies.match(FAVOURITES);
    return found ? found.json() : [];
  };
  const tidy = async () => {
    const copies = await caches.open(`copies:${user}`);
    const wanted = new Set(await favourites(copies));
    const opened = (await articlesIn(copies)).filter((path) => !wanted.has(path));
    for (const path of opened.slice(0, Math.max(0, opened.length - MOST_OPENED))) await copies.delete(path);
  };
  const keepFavourites = async (list) => {
    const copies = await caches.open(`copies:${user}`);
    const wanted = [...list.querySelectorAll("[data-favourite]")].slice(0, MOST_FAVOURITES).map((one) => one.dataset.favourite);
    await copies.put(FAVOURITES, new Response(JSON.stringify(wanted)));
    const had = new Set(await articlesIn(copies));
    for (const path of wanted) if (!had.has(path)) await keep(path);
  };
  const list = async (place) => {
    const copies = await caches.open(`copies:${await owner()}`);
    const items = await Promise.all((await articlesIn(copies)).reverse().map(async (path) => {
      const link = document.createElement("a");
      link.href = path.replace(/\/offline$/, "");
      link.textContent = decodeURIComponent((await copies.match(path)).headers.get("Offline-Title") || path);
      const item = document.createElement("li");
      item.append(link);
      return item;
    }));
    place.replaceChildren(...items);
    document.querySelector("[data-no-copies]").hidden = items.length > 0;
    document.querySelector("[data-unsent]").hidden = location.search !== "?unsent";
  };

  // The worker does not know the user's language; the page passes it on.
  const speak = async () => {
    const shelf = await caches.open("shell");
    const kept = await shelf.match("/offline");
    const chosen = document.documentElement.lang;
    if (!kept || kept.headers.get("Content-Language") === chosen) return;
    const answer = await fetch("/offline", { cache: "no-store", credentials: "omit", headers: { "Accept-Language": chosen } });
    if (answer.ok) await shelf.put("/offline", answer);
  };

  const work = async () => {
    const shelf = document.querySelector("[data-copies]");
    if (shelf) return list(shelf);
    // The sign-in page means that nobody is signed in; any other page without a user name may be an outage.
    if (!user) return document.querySelector('form[action="/sign-in"]') ? wipe() : undefined;
    await navigator.serviceWorker.register("/sw.js");
    await claim();
    const article = document.querySelector("[data-offline-copy]");
    if (article) await keep(article.dataset.offlineCopy);
    const kept = document.querySelector("[data-favourites]");
    if (kept) await keepFavourites(kept);
    await tidy();
    await speak();
    document.documentElement.dataset.offline = "ready";
  };
  work().catch(() => undefined);
})();
