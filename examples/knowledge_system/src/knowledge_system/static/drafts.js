// What is typed is kept at once in sessionStorage, under the person who wrote it: it outlasts the end of a session in
// this tab, and is deleted at sign-out. The editor also sends it to the server after a short rest, so that it outlasts
// the tab. Both are called drafts, never "saved". The fields are never written to while somebody types.
(() => {
  "use strict";
  const owner = `draft:${document.body.dataset.user}:`;
  const drop = (prefix) => {
    for (const key of Object.keys(sessionStorage)) if (key.startsWith(prefix)) sessionStorage.removeItem(key);
  };
  for (const form of document.querySelectorAll('form[action="/sign-out"]')) {
    form.addEventListener("submit", () => drop("draft:"));
  }
  const sent = sessionStorage.getItem("draft-sent");
  if (sent && document.querySelector(".notice.good")) sessionStorage.removeItem(sent);
  sessionStorage.removeItem("draft-sent");
  if (!document.body.dataset.user) return;
  // A restored page may be shown to another user by now. The input of its author is stored here.
  window.addEventListener("pageshow", ({ persisted }) => {
    if (!persisted) return;
    window.dispatchEvent(new Event("session-over"));
    location.reload();
  });

  for (const form of document.querySelectorAll("form[data-draft]")) {
    // Going back in this tab would show the input that the browser has restored, whoever wrote it.
    form.autocomplete = "off";
    let key = owner + form.dataset.draft;
    const note = form.querySelector("[data-draft-note]");
    const words = note.dataset;
    const fields = [...form.elements].filter((field) => field.name && !["hidden", "submit", "file"].includes(field.type));
    const values = () => Object.fromEntries(fields.map((field) => [field.name, field.value]));
    const say = (text) => {
      note.hidden = false;
      note.querySelector("[data-draft-text]").textContent = text;
    };
    const shown = values();
    let unsent = false;
    let sending = false;
    let resting;
    let oldest = 0;
    let storing;
    const revision = form.elements.namedItem("revision");
    const keep = () => {
      unsent = true;
      try {
        const made = form.elements.namedItem("revision");
        sessionStorage.setItem(key, JSON.stringify({ revision: made ? made.value : "", values: values(), at: Date.now() }));
        say(words.kept);
      } catch {
        say(words.failed);
      }
      rest();
    };
    const place = () => form.dataset.store + form.dataset.draft;
    const headers = () => ({ Accept: "application/json", "Content-Type": "application/json", "X-CSRF-Token": document.body.dataset.csrf || "" });
    const store = async (keepalive = false) => {
      clearTimeout(resting);
      resting = undefined;
      oldest = 0;
      if (sending || !unsent) return;
      storing?.abort();
      const mine = (storing = new AbortController());
      const body = JSON.stringify({ ...values(), revision: Number(form.elements.namedItem("revision")?.value || 0) });
      const answer = await fetch(place(), { method: "PUT", headers: headers(), body, keepalive, signal: mine.signal });
      // The text may have changed meanwhile, or been sent.
      if (!answer.ok || mine !== storing || resting || sending) return;
      unsent = false;
      say(words.stored);
    };
    // After a rest of a second and a half, and every five seconds of typing.
    const rest = () => {
      if (!form.dataset.store) return;
      oldest ||= Date.now();
      clearTimeout(resting);
      resting = setTimeout(() => store().catch(() => undefined), Math.max(0, Math.min(1500, oldest + 5000 - Date.now())));
    };
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && resting) store(true).catch(() => undefined);
    });
    const kept = JSON.parse(sessionStorage.getItem(key) || "null");
    // A rejected form contains the submitted text, which is newer than any draft.
    const newer = !form.dataset.storedAt || (kept?.at || 0) > Number(form.dataset.storedAt);
    if (kept && newer && !document.querySelector(".notice.bad") && Object.entries(kept.values).some(([name, value]) => shown[name] !== value)) {
      for (const field of fields) if (field.name in kept.values) field.value = kept.values[field.name];
      const older = revision && kept.revision !== revision.value;
      unsent = true;
      const both = { "{old}": kept.revision, "{new}": revision?.value };
      say(words.restored + (older ? words.older.replace(/\{old\}|\{new\}/g, (place) => both[place]) : ""));
      // The draft is based on that revision, whatever has been saved since.
      if (older) revision.value = kept.revision;
      rest();
    }
    form.addEventListener("input", keep);
    // The article was created while it is being edited: the draft belongs to it from now on.
    form.addEventListener("draft-moved", () => {
      sessionStorage.removeItem(key);
      fetch(form.dataset.store + key.slice(owner.length), { method: "DELETE", headers: headers() }).catch(() => undefined);
      key = owner + form.dataset.draft;
      const discard = note.querySelector("[data-draft-drop]").form;
      if (discard !== form) discard.setAttribute("action", form.getAttribute("action").replace(/edit$/, "discard"));
      keep();
    });
    note.querySelector("[data-draft-drop]").addEventListener("click", ({ currentTarget }) => {
      sessionStorage.removeItem(key);
      unsent = false;
      sending = true;
      clearTimeout(resting);
      storing?.abort();
      if (currentTarget.type === "button") location.assign(location.pathname);
    });
    form.addEventListener("submit", (event) => {
      if (event.submitter?.hasAttribute("data-preview")) return;
      clearTimeout(resting);
      storing?.abort();
      sessionStorage.setItem("draft-sent", key);
      sending = true;
    });
    // After the end of a session, the draft waits for its owner to sign in again.
    window.addEventListener("session-over", () => { sending = true; });
    window.addEventListener("beforeunload", (event) => { if (unsent && !sending) event.preventDefault(); });
  }
})();
