// The search field: "/" focuses it, and titles are suggested while typing (WAI-ARIA, combobox with a list). Enter sends
// the form as always, unless a title was chosen with the arrow keys. Nothing happens while an input method composes.
(() => {
  "use strict";
  const field = document.querySelector("input[data-titles]");
  if (!field) return;
  const list = Object.assign(document.createElement("ul"), { id: "titles", className: "titles", hidden: true });
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", field.dataset.list);
  field.form.append(list);
  for (const [name, value] of [["role", "combobox"], ["aria-autocomplete", "list"], ["aria-expanded", "false"], ["aria-controls", "titles"]]) {
    field.setAttribute(name, value);
  }
  let number = 0;
  let waiting;
  let chosen = -1;

  const choose = (at) => {
    const options = [...list.children];
    chosen = at;
    options.forEach((option, place) => option.setAttribute("aria-selected", String(place === at)));
    if (at < 0) field.removeAttribute("aria-activedescendant");
    else field.setAttribute("aria-activedescendant", options[at].id);
  };
  const show = (items) => {
    list.replaceChildren(
      ...items.map(({ id, title }, place) => {
        const option = Object.assign(document.createElement("li"), { id: `title-${place}`, textContent: title });
        option.setAttribute("role", "option");
        option.dataset.path = `/articles/${id}`;
        // Before the field loses the focus, which closes the list.
        option.addEventListener("pointerdown", (event) => event.preventDefault());
        option.addEventListener("click", () => location.assign(option.dataset.path));
        return option;
      }),
    );
    list.hidden = !items.length;
    field.setAttribute("aria-expanded", String(!list.hidden));
    choose(-1);
  };
  const close = () => {
    clearTimeout(waiting);
    number += 1;
    show([]);
  };
  const ask = async () => {
    const asked = (number += 1);
    const word = field.value.trim().slice(0, 40);
    if (!word) return close();
    const answer = await fetch(`${field.dataset.titles}?q=${encodeURIComponent(word)}`, { headers: { Accept: "application/json" } });
    if (answer.ok && asked === number) show((await answer.json()).items);
  };

  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => ask().catch(() => undefined), 200);
  });
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    // Safari reports the key that ends a composition as 229, and no longer as part of it.
    if (event.isComposing || event.keyCode === 229 || list.hidden) return;
    const last = list.children.length - 1;
    const to = { ArrowDown: chosen < last ? chosen + 1 : -1, ArrowUp: chosen < 0 ? last : chosen - 1 }[event.key];
    if (to !== undefined) choose(to);
    else if (event.key === "Escape") close();
    else if (event.key === "Enter" && chosen >= 0) location.assign(list.children[chosen].dataset.path);
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable], dialog")) return;
    event.preventDefault();
    field.focus();
    field.select();
  });
})();
