// Tags that complete the typed text, as buttons below the field; the field itself stays a plain text field.
(() => {
  "use strict";
  const field = document.querySelector("[data-tags]");
  if (!field) return;
  const box = document.createElement("div");
  box.className = "suggestions";
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", field.labels[0]?.textContent || "");
  field.after(box);
  const begun = () => field.value.split(/[,、，\s]+/).pop();
  let asked = 0;
  let waiting;

  const take = (name) => {
    field.value = `${field.value.slice(0, field.value.length - begun().length)}${name}、`;
    box.replaceChildren();
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.focus();
  };
  const show = async () => {
    const word = begun();
    const number = (asked += 1);
    if (!word) return box.replaceChildren();
    const answer = await fetch(`${field.dataset.tags}?q=${encodeURIComponent(word.slice(0, 40))}`, {
      headers: { Accept: "application/json" },
    });
    if (!answer.ok || number !== asked) return;
    const { items } = await answer.json();
    box.replaceChildren(
      ...items.map(({ name, articles }) => {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "small";
        button.textContent = `${name} (${articles})`;
        button.addEventListener("click", () => take(name));
        return button;
      }),
    );
  };
  const soon = (event) => {
    // The buttons would move while an input method composes.
    if (event.isComposing) return;
    clearTimeout(waiting);
    waiting = setTimeout(() => show().catch(() => undefined), 250);
  };
  field.addEventListener("input", soon);
  field.addEventListener("compositionend", () => soon({ isComposing: false }));
})();
