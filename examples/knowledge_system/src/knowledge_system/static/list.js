// Order and filters of the list apply as soon as they change. The page of the new address is loaded, and its parts
// take the place of the old ones, so that the focus stays in the form. Without this script, a button sends the form.
(() => {
  "use strict";
  const form = document.querySelector("form[data-at-once]");
  if (!form) return;
  let newest = 0;

  const address = () => {
    const kept = [...new FormData(form)].filter(([name, value]) => value && !(name === "status" && value === "published"));
    const query = new URLSearchParams(kept).toString();
    return query ? `${form.getAttribute("action")}?${query}` : form.getAttribute("action");
  };
  const show = async (url) => {
    const number = (newest += 1);
    const answer = await fetch(url, { headers: { Accept: "text/html" } });
    // The end of a session leads to another page, which is shown as a whole.
    if (!answer.ok || answer.redirected) return location.assign(url);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (number !== newest) return;
    for (const part of document.querySelectorAll("[data-part]")) {
      const other = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
      part.replaceChildren(...(other ? other.childNodes : []));
    }
    document.title = fresh.title;
    history.pushState(null, "", url);
  };

  form.addEventListener("change", () => {
    if (form.reportValidity()) show(address()).catch(() => form.submit());
  });
  window.addEventListener("popstate", () => location.reload());
  form.querySelector("[data-apply]").hidden = true;
})();
