// Pictures that are pasted or dropped into the text, and files that are picked, become attachments, and the text gets their address. A
// failure is shown below the text, and leaves nothing in it. A new article is first saved as a draft, whose editing
// continues: its pictures belong to it from the beginning, and none is orphaned.
(() => {
  "use strict";
  const text = document.querySelector("textarea[data-upload]");
  if (!text) return;
  const form = text.form;
  const note = document.querySelector("[data-upload-note]");
  const words = note.dataset;
  const say = (message) => {
    note.hidden = false;
    note.textContent = message;
  };
  const changed = () => text.dispatchEvent(new Event("input", { bubbles: true }));
  const put = (old, now) => {
    const at = old ? text.value.indexOf(old) : text.selectionStart;
    if (at < 0) return;
    text.setRangeText(now, at, at + (old ? old.length : text.selectionEnd - at), "end");
    changed();
  };
  const named = (file) => {
    const two = (number) => String(number).padStart(2, "0");
    const now = new Date();
    const moment = [now.getFullYear(), two(now.getMonth() + 1), two(now.getDate()), "-", two(now.getHours()), two(now.getMinutes()), two(now.getSeconds())].join("");
    // Browsers give every pasted picture the same name.
    return /^image\.\w+$/.test(file.name) ? `${words.named}-${moment}.${file.name.split(".").pop()}` : file.name;
  };
  const post = async (path, body, headers = {}, tries = 0) => {
    const common = { Accept: "application/json", "X-CSRF-Token": document.body.dataset.csrf || "" };
    const answer = await fetch(path, { method: "POST", body, headers: { ...common, ...headers } });
    const wait = Number(answer.headers.get("Retry-After"));
    // Several pictures at once may reach the upload limit per minute; the later ones wait.
    const limited = answer.status === 429 && wait > 0 && wait <= 120;
    const result = limited ? null : await answer.json();
    const busy = result?.type === "/problems/pictures-busy" && tries < 12;
    if (limited || busy) {
      say(limited ? words.waiting : words.busy);
      await new Promise((resolve) => { setTimeout(resolve, wait * 1000); });
      return post(path, body, headers, tries + 1);
    }
    if (answer.ok) return result;
    const error = result.errors?.[0];
    const label = error && form.elements.namedItem(error.field)?.labels?.[0]?.firstChild.textContent.trim();
    throw new Error(error ? `${label ? `${label}: ` : ""}${error.message}` : result.detail || answer.status);
  };
  const make = async () => {
    const typed = (name) => form.elements.namedItem(name).value;
    const { id, revision } = await post(text.dataset.create, JSON.stringify({
      title: typed("title").trim() || words.untitled,
      category: typed("category"),
      site: typed("site"),
      summary: typed("summary"),
      body: text.value.replace(/!\[… \d+\]\(\)/g, "").trim() || "…",
      tags: typed("tags").split(/[,、，\s]+/).filter(Boolean),
      status: "draft",
    }), { "Content-Type": "application/json" });
    text.dataset.upload = `/api/knowledge/${id}/attachments`;
    form.setAttribute("action", `/articles/${id}/edit`);
    form.dataset.draft = `article-${id}`;
    form.append(Object.assign(document.createElement("input"), { type: "hidden", name: "revision", value: revision }));
    form.querySelector("[data-leave]").href = `/articles/${id}`;
    history.replaceState(null, "", `/articles/${id}/edit`);
    form.dispatchEvent(new Event("draft-moved"));
  };
  let making;
  const place = () => (text.dataset.upload ? null : (making ??= make().finally(() => { making = undefined; })));
  let number = 0;
  let under = 0;
  const upload = async (file) => {
    const mark = `![… ${++number}]()`;
    if (file.size > Number(words.limit)) {
      say(`${words.failed} ${words.large.replace("{name}", file.name).replace("{size}", `${(file.size / 1048576).toFixed(1)} MB`)}`);
      return;
    }
    put("", mark);
    say(words.sending);
    under += 1;
    const fresh = !text.dataset.upload;
    try {
      await place();
      const body = new FormData();
      body.append("file", file, named(file));
      const result = await post(text.dataset.upload, body);
      const label = result.name.replace(/\.\w+$/, "").replace(/[[\]\\]/g, "_");
      put(mark, `${result.width ? "!" : ""}[${label}](${result.url})`);
      say(fresh ? words.made : words.done);
    } catch (error) {
      put(mark, "");
      say(`${words.failed} ${error.message || ""}`);
    } finally {
      under -= 1;
    }
  };
  let sent = Promise.resolve();
  const send = (files) => {
    for (const file of files) sent = sent.then(() => upload(file));
  };
  const take = (event, files) => {
    const pictures = [...files].filter((file) => file.type.startsWith("image/"));
    if (!pictures.length) return;
    event.preventDefault();
    send(pictures);
  };
  // Saving meanwhile would create a new article twice, with a placeholder instead of a picture.
  document.addEventListener("submit", (event) => {
    if (event.target !== form || !under || event.submitter?.hasAttribute("data-preview")) return;
    event.preventDefault();
    event.stopPropagation();
    say(words.sending);
  }, true);
  text.addEventListener("paste", (event) => {
    // A table copied from a spreadsheet comes as text and as a picture; the text is used.
    if (!event.clipboardData.types.includes("text/plain")) take(event, event.clipboardData.files);
  });
  // A file that is picked, on a telephone from the camera, goes the same way, and not with the form.
  const pick = document.getElementById("pick");
  pick.closest("[data-pick]").hidden = false;
  pick.addEventListener("change", () => {
    send([...pick.files]);
    pick.value = "";
  });
  // The files of the form below go one by one: a refused one stops no other, and the limit is that of each file.
  const batch = document.querySelector("form[data-each]");
  batch?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { each, next, sending, result } = batch.dataset;
    const place = batch.querySelector("[data-results]");
    const button = batch.querySelector("button");
    const files = [...batch.elements.file.files];
    const refused = [];
    button.disabled = true;
    place.hidden = false;
    for (const [index, file] of files.entries()) {
      place.textContent = sending.replace("{number}", index + 1).replace("{total}", files.length);
      const body = new FormData();
      body.append("file", file, file.name);
      await post(each, body).catch((error) => refused.push(`${file.name}: ${error.message}`));
    }
    button.disabled = false;
    if (!refused.length) {
      history.replaceState(null, "", next);
      location.reload();
      return;
    }
    place.textContent = result.replace("{number}", files.length - refused.length);
    const list = document.createElement("ul");
    for (const line of refused) list.append(Object.assign(document.createElement("li"), { textContent: line }));
    place.append(list);
    place.classList.add("bad");
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    text.addEventListener(kind, (event) => {
      if (kind === "dragover" && event.dataTransfer.types.includes("Files")) event.preventDefault();
      text.classList.toggle("dropping", kind === "dragover" && event.dataTransfer.types.includes("Files"));
      if (kind === "drop") take(event, event.dataTransfer.files);
    });
  }
})();
