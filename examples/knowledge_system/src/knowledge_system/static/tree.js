// Nodes are dragged before, after or into others; the arrow buttons do the same without a pointer. The server decides;
// its page takes the place of the old tree, the new place is said, and the focus stays on the button.
(() => {
  "use strict";
  const tree = document.querySelector("[data-tree]");
  const status = document.querySelector("[data-tree-status]");
  let dragged;
  let target;

  const send = async (node, values, focused) => {
    const body = new URLSearchParams({ csrf_token: document.body.dataset.csrf || "", ...values });
    const answer = await fetch(`/tree/${node}`, { method: "POST", body, headers: { Accept: "text/html" } });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const part = fresh.querySelector("[data-tree]");
    if (!part) throw new Error(String(answer.status));
    tree.replaceChildren(...part.childNodes);
    prepare();
    const moved = document.getElementById(`node-${node}`);
    const errors = [...fresh.querySelectorAll("main .error")].map((each) => each.textContent).join(" ");
    status.textContent = answer.ok ? moved?.dataset.said || "" : errors || fresh.querySelector("main .notice.bad p")?.textContent || status.dataset.failed;
    if (focused) moved?.querySelector(`button[value="${focused}"]`)?.focus();
  };
  const move = (node, values, focused) => send(node, values, focused).catch(() => { status.textContent = status.dataset.failed; });
  const prepare = () => { for (const row of tree.querySelectorAll(".node")) row.draggable = true; };

  tree.addEventListener("submit", (event) => {
    const step = event.submitter?.value;
    if (!["up", "down", "in", "out"].includes(step)) return;
    event.preventDefault();
    move(event.target.closest("[data-node]").dataset.node, { step }, step);
  });
  const clear = () => {
    tree.querySelectorAll("[data-drop]").forEach((row) => row.removeAttribute("data-drop"));
    target = undefined;
  };
  tree.addEventListener("dragstart", (event) => {
    dragged = event.target.closest?.("[data-node]");
    if (!dragged) return;
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/plain", dragged.dataset.node);
  });
  tree.addEventListener("dragover", (event) => {
    const row = event.target.closest?.(".node");
    clear();
    if (!dragged || !row || dragged.contains(row)) return;
    event.preventDefault();
    const { top, height } = row.getBoundingClientRect();
    const share = (event.clientY - top) / height;
    target = { row, where: share < 0.3 ? "before" : share > 0.7 ? "after" : "into" };
    row.dataset.drop = target.where;
  });
  tree.addEventListener("dragend", () => { dragged = undefined; clear(); });
  tree.addEventListener("drop", (event) => {
    if (!dragged || !target) return;
    event.preventDefault();
    const other = target.row.closest("[data-node]");
    const siblings = (list) => [...(list?.children || [])].filter((each) => each !== dragged);
    const before = siblings(other.parentElement);
    const inside = siblings(other.querySelector(":scope > ul"));
    const [parent, after] = {
      before: [other.dataset.parent, before[before.indexOf(other) - 1]?.dataset.node || 0],
      after: [other.dataset.parent, other.dataset.node],
      into: [other.dataset.node, inside.at(-1)?.dataset.node || 0],
    }[target.where];
    move(dragged.dataset.node, { step: "move", parent, after });
    dragged = undefined;
    clear();
  });
  prepare();
})();
