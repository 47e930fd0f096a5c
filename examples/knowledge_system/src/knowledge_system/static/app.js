// Two conveniences; every page works without them: the dialog before a session ends, and drafts kept in this tab.
(() => {
  "use strict";
  const body = document.body;
  const dialog = document.getElementById("session-dialog");
  const warn = Number(body.dataset.warn || 0);
  let endsAt = Date.now() + Number(body.dataset.session || 0) * 1000;

  const headers = () => ({ Accept: "application/json", "X-CSRF-Token": body.dataset.csrf || "" });
  const left = () => Math.max(0, Math.round((endsAt - Date.now()) / 1000));
  const spoken = (seconds) => (seconds >= 60 ? `${Math.floor(seconds / 60)} 分 ${seconds % 60} 秒` : `${seconds} 秒`);

  // Another tab may have kept the session alive, so the server is asked, on a path that does not count as activity.
  const ask = async () => {
    const answer = await fetch("/api/auth/session", { headers: headers(), cache: "no-store" });
    if (answer.status === 401) location.assign("/sign-in?next=" + encodeURIComponent(location.pathname));
    if (answer.ok) endsAt = Date.now() + (await answer.json()).expires_in * 1000;
  };
  const extend = async () => {
    const answer = await fetch("/api/auth/session/refresh", { method: "POST", headers: headers() });
    if (answer.ok) await ask();
    if (left() > warn) return watch();
    for (const part of dialog.querySelectorAll("[data-can-extend]")) part.hidden = true;
    dialog.querySelector("[data-cannot-extend]").hidden = false;
    dialog.showModal();
    return count();
  };
  const watch = () => {
    const wait = Math.max(0, left() - warn);
    setTimeout(async () => {
      await ask().catch(() => undefined);
      if (left() > warn) return watch();
      if (!dialog.open) dialog.showModal();
      return count();
    }, Math.min(wait * 1000 + 200, 2 ** 31 - 1));
  };
  const count = () => {
    dialog.querySelector("[data-countdown]").textContent = spoken(left());
    if (!dialog.open) return;
    if (left() === 0) setTimeout(() => ask().catch(() => undefined), 1500);
    else setTimeout(count, 1000);
  };
  if (dialog && body.dataset.session) {
    document.querySelector(".session-notice")?.remove();
    dialog.addEventListener("close", () => { if (dialog.returnValue === "extend") extend(); });
    watch();
  }

  // Drafts live in sessionStorage: they outlast a sign-out in this tab and vanish with the tab. They are called
  // drafts of this tab, never "saved".
  for (const form of document.querySelectorAll("form[data-draft]")) {
    const key = `draft:${form.dataset.draft}`;
    const note = form.querySelector("[data-draft-note]");
    const fields = () => [...form.elements].filter((field) => field.name && field.type !== "hidden" && field.type !== "submit");
    const say = (text) => { if (note) { note.hidden = false; note.textContent = text; } };
    const kept = JSON.parse(sessionStorage.getItem(key) || "null");
    const shown = Object.fromEntries(fields().map((field) => [field.name, field.value]));
    if (kept && !document.querySelector(".notice.bad") && Object.entries(kept).some(([name, value]) => shown[name] !== value)) {
      for (const field of fields()) if (field.name in kept) field.value = kept[field.name];
      say("送信していない下書きをこのタブから復元しました。まだ保存されていません。");
    }
    form.addEventListener("input", () => {
      sessionStorage.setItem(key, JSON.stringify(Object.fromEntries(fields().map((field) => [field.name, field.value]))));
      say("下書きをこのタブに控えています。まだ保存されていません。");
    });
    form.addEventListener("submit", () => sessionStorage.setItem("draft-sent", key));
  }
  const sent = sessionStorage.getItem("draft-sent");
  if (sent && document.querySelector(".notice.good")) sessionStorage.removeItem(sent);
  sessionStorage.removeItem("draft-sent");
})();
