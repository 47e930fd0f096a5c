// Code and tables that are wider than their box can be moved by keyboard, and a screen reader tells the two drawers
// apart.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const japanese = document.documentElement.lang === "ja";
  const label = (selector, text) => document.querySelector(selector)?.setAttribute("aria-label", text);
  label(".sidebar-drawer", japanese ? "ページの一覧" : "Pages");
  label(".toc-drawer", japanese ? "このページの内容" : "On this page");

  const reach = () => {
    for (const box of document.querySelectorAll("article :is(pre, .table-wrapper)")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  reach();
  addEventListener("resize", reach);
});
