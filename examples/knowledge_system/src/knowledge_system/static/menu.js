// An open menu closes with Escape, and when the focus leaves it; without this script it closes by its summary.
(() => {
  "use strict";
  const menu = document.querySelector("details.person");
  if (!menu) return;
  const elsewhere = ({ target }) => { if (!menu.contains(target)) menu.open = false; };
  document.addEventListener("pointerdown", elsewhere);
  document.addEventListener("focusin", elsewhere);
  menu.addEventListener("keydown", (event) => {
    if (event.isComposing || event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
})();
