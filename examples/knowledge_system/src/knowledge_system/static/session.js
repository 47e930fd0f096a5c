// The dialog before a session ends, synchronized over all tabs: each tab shares what the server reports.
(() => {
  "use strict";
  const body = document.body;
  const dialog = document.getElementById("session-dialog");
  const bar = document.getElementById("session-bar");
  if (!dialog || !body.dataset.session) return;
  const warn = Number(body.dataset.warn);
  const channel = "BroadcastChannel" in window ? new BroadcastChannel("session") : null;
  const headers = () => ({ Accept: "application/json", "X-CSRF-Token": body.dataset.csrf || "" });
  let endsAt = Date.now() + Number(body.dataset.session) * 1000;
  let asked = false;
  let closed = false;
  let leaving = false;

  const left = () => Math.max(0, Math.round((endsAt - Date.now()) / 1000));
  const spoken = (seconds) =>
    (seconds >= 60 ? dialog.dataset.minutes : dialog.dataset.seconds)
      .replace("{minutes}", Math.floor(seconds / 60))
      .replace("{seconds}", seconds % 60);
  const all = (name, change) => [dialog, bar].forEach((place) => place.querySelectorAll(`[${name}]`).forEach(change));

  const calm = () => {
    asked = closed = false;
    bar.hidden = true;
    if (dialog.open) dialog.close("calm");
  };
  const learn = (moment, tell) => {
    endsAt = moment;
    if (left() > warn) calm();
    if (tell && channel) channel.postMessage({ endsAt });
  };
  const leave = (reason, tell) => {
    if (leaving) return;
    leaving = true;
    if (tell && channel) channel.postMessage({ over: reason });
    window.dispatchEvent(new Event("session-over"));
    const next = encodeURIComponent(location.pathname + location.search);
    location.assign(`/sign-in?reason=${encodeURIComponent(reason)}&next=${next}`);
  };
  const ended = (answer) => {
    const reason = answer.headers.get("X-Session-Timeout-Reason");
    if (reason) leave(reason, true);
    // The server reports it once: another tab has received it, and will share it.
    else setTimeout(() => leave("revoked", true), 500);
  };

  // Requested on a path that does not count as activity.
  const ask = async () => {
    const answer = await fetch("/api/auth/session", { headers: headers(), cache: "no-store" });
    if (answer.status === 401) return ended(answer);
    if (answer.ok) learn(Date.now() + (await answer.json()).expires_in * 1000, true);
  };
  const extend = async () => {
    const answer = await fetch("/api/auth/session/refresh", { method: "POST", headers: headers() });
    if (answer.status === 401) return ended(answer);
    if (answer.ok) learn(Date.now() + (await answer.json()).expires_in * 1000, true);
    if (answer.ok && left() <= warn) {
      all("data-can-extend", (part) => { part.hidden = true; });
      all("data-cannot-extend", (part) => { part.hidden = false; });
      asked = true;
      show();
    }
  };
  const show = () => {
    all("data-countdown", (part) => { part.textContent = spoken(left()); });
    bar.hidden = !closed;
    if (!closed && !dialog.open) dialog.showModal();
  };
  const tick = async () => {
    if (leaving || left() > warn) return;
    // Another tab without this script may have kept the session alive.
    if (!asked || left() === 0) {
      asked = true;
      await ask().catch(() => undefined);
    }
    if (!leaving && left() <= warn) show();
  };

  document.querySelector("form.session-notice")?.remove();
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "extend") extend().catch(() => undefined);
    // The event arrives late: a dialog closed by this script was not dismissed by the user, even if time is short again.
    else if (dialog.returnValue !== "calm" && left() <= warn) { closed = true; show(); }
    dialog.returnValue = "";
  });
  bar.querySelector("[data-extend]").addEventListener("click", () => extend().catch(() => undefined));
  if (channel) {
    channel.onmessage = ({ data }) => (data.over ? leave(data.over, false) : learn(data.endsAt, false));
    channel.postMessage({ endsAt });
  }
  for (const form of document.querySelectorAll('form[action="/sign-out"]')) {
    form.addEventListener("submit", () => { leaving = true; channel?.postMessage({ over: "revoked" }); });
  }
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", tick);
  tick();
})();
