// Pictures that are pasted or dropped into the text become attachments, and the text gets their address. What fails is
// said below the text, and leaves nothing in it.
(() => {
  "use strict";
  const text = document.querySelector("textarea[data-upload]");
  if (!text) return;
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
    // Browsers call every pasted picture the same.
    return /^image\.\w+$/.test(file.name) ? `${words.named}-${moment}.${file.name.split(".").pop()}` : file.name;
  };
  let number = 0;
  const upload = async (file) => {
    const mark = `![… ${++number}]()`;
    put("", mark);
    say(words.sending);
    try {
      const body = new FormData();
      body.append("file", file, named(file));
      const answer = await fetch(text.dataset.upload, {
        method: "POST", body, headers: { Accept: "application/json", "X-CSRF-Token": document.body.dataset.csrf || "" },
      });
      const told = await answer.json();
      if (!answer.ok) throw new Error(told.errors?.[0]?.message || told.detail || answer.status);
      put(mark, `![${told.name.replace(/\.\w+$/, "").replace(/[[\]\\]/g, "_")}](${told.url})`);
      say(words.done);
    } catch (error) {
      put(mark, "");
      say(`${words.failed} ${error.message || ""}`);
    }
  };
  const take = (event, files) => {
    const pictures = [...files].filter((file) => file.type.startsWith("image/"));
    if (!pictures.length) return;
    event.preventDefault();
    if (text.dataset.upload) pictures.reduce((before, file) => before.then(() => upload(file)), Promise.resolve());
    else say(words.new);
  };
  text.addEventListener("paste", (event) => {
    // A table copied from a spreadsheet comes as text and as a picture; the text is what is meant.
    if (!event.clipboardData.types.includes("text/plain")) take(event, event.clipboardData.files);
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    text.addEventListener(kind, (event) => {
      if (kind === "dragover" && event.dataTransfer.types.includes("Files")) event.preventDefault();
      text.classList.toggle("dropping", kind === "dragover" && event.dataTransfer.types.includes("Files"));
      if (kind === "drop") take(event, event.dataTransfer.files);
    });
  }
})();
