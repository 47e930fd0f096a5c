// The text as readers will see it, beside the field and scrolling in step, or behind a tab where there is no room.
// The server renders it after a short rest; nothing is asked for or changed while an input method composes.
(() => {
  "use strict";
  const text = document.querySelector("textarea[data-live]");
  if (!text) return;
  const words = text.dataset;
  const make = (tag, properties, attributes = {}) => {
    const part = Object.assign(document.createElement(tag), properties);
    for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
    return part;
  };
  const panes = make("div", { className: "panes" });
  const shown = make("div", { id: "live", className: "prose live", tabIndex: 0 }, { role: "region", "aria-label": words.live });
  const note = make("p", { className: "hint", hidden: true, textContent: words.stale }, { role: "status" });
  const tabs = make("div", { className: "pane-tabs" });
  const buttons = [words.write, words.live].map((textContent) => make("button", { type: "button", textContent }));
  const show = (reading) => {
    panes.classList.toggle("reading", reading);
    buttons.forEach((button, number) => button.setAttribute("aria-pressed", String(Boolean(number) === reading)));
  };
  buttons.forEach((button, number) => button.addEventListener("click", () => { show(Boolean(number)); rest(0); }));
  tabs.append(...buttons);
  text.before(tabs, panes);
  panes.append(text, shown);
  panes.after(note);
  show(false);

  let leading = text;
  const follow = (from, to) => {
    if (leading !== from) return;
    const room = from.scrollHeight - from.clientHeight;
    to.scrollTop = room > 0 ? (from.scrollTop / room) * (to.scrollHeight - to.clientHeight) : 0;
  };
  for (const [one, other] of [[text, shown], [shown, text]]) {
    for (const kind of ["pointerenter", "focus", "wheel", "touchstart"]) one.addEventListener(kind, () => { leading = one; }, { passive: true });
    one.addEventListener("scroll", () => follow(one, other), { passive: true });
  }

  let composing = false;
  let waiting;
  let asking;
  let last;
  const render = async () => {
    const body = text.value;
    if (composing || !shown.checkVisibility() || body === last) return;
    asking?.abort();
    asking = new AbortController();
    const asked = new URLSearchParams({ csrf_token: document.body.dataset.csrf || "", body, part: "body" });
    try {
      const answer = await fetch(words.preview, { method: "POST", body: asked, headers: { Accept: "text/html" }, signal: asking.signal });
      note.hidden = answer.ok && !answer.redirected;
      if (!note.hidden) return;
      shown.replaceChildren(...new DOMParser().parseFromString(await answer.text(), "text/html").body.childNodes);
      last = body;
      follow(text, shown);
    } catch (error) {
      if (error.name !== "AbortError") note.hidden = false;
    }
  };
  const rest = (time = 600) => {
    clearTimeout(waiting);
    waiting = setTimeout(render, time);
  };
  text.addEventListener("input", () => rest());
  for (const kind of ["start", "end"]) {
    text.addEventListener(`composition${kind}`, () => { composing = kind === "start"; rest(); });
  }
  window.addEventListener("resize", () => rest());
  rest(0);
})();
