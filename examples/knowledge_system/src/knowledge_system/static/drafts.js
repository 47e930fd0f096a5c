// Drafts live in sessionStorage, under the person who wrote them: they outlast the end of a session in this tab,
// vanish with the tab, and are deleted at sign-out. They are called drafts of this tab, never "saved".
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
    const revision = form.elements.namedItem("revision");
    const keep = () => {
      unsent = true;
      try {
        const made = form.elements.namedItem("revision");
        sessionStorage.setItem(key, JSON.stringify({ revision: made ? made.value : "", values: values() }));
        say(words.kept);
      } catch {
        say(words.failed);
      }
    };
    const kept = JSON.parse(sessionStorage.getItem(key) || "null");
    // A rejected form contains the submitted text, which is newer than any draft.
    if (kept && !document.querySelector(".notice.bad") && Object.entries(kept.values).some(([name, value]) => shown[name] !== value)) {
      for (const field of fields) if (field.name in kept.values) field.value = kept.values[field.name];
      const older = revision && kept.revision !== revision.value;
      unsent = true;
      const both = { "{old}": kept.revision, "{new}": revision?.value };
      say(words.restored + (older ? words.older.replace(/\{old\}|\{new\}/g, (place) => both[place]) : ""));
      // The draft is based on that revision, whatever has been saved since.
      if (older) revision.value = kept.revision;
    }
    form.addEventListener("input", keep);
    // The article was created while it is being edited: the draft belongs to it from now on.
    form.addEventListener("draft-moved", () => {
      sessionStorage.removeItem(key);
      key = owner + form.dataset.draft;
      keep();
    });
    note.querySelector("[data-draft-drop]").addEventListener("click", () => {
      sessionStorage.removeItem(key);
      unsent = false;
      location.assign(location.pathname);
    });
    form.addEventListener("submit", (event) => {
      if (event.submitter?.hasAttribute("data-preview")) return;
      sessionStorage.setItem("draft-sent", key);
      sending = true;
    });
    // After the end of a session, the draft waits for its owner to sign in again.
    window.addEventListener("session-over", () => { sending = true; });
    window.addEventListener("beforeunload", (event) => { if (unsent && !sending) event.preventDefault(); });
  }
})();
