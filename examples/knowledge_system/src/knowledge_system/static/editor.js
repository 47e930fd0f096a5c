// The buttons above a text in Markdown: one stop of the Tab key, arrows between them (WAI-ARIA, toolbar pattern).
(() => {
  "use strict";
  // Lines with tabs as a table in Markdown. A cell with a line break or a quotation mark stands in quotation marks.
  const table = (lines) => {
    const rows = [[""]];
    let quoted = false;
    const source = lines.replace(/\r\n?/g, "\n").replace(/\n+$/, "");
    for (let place = 0; place < source.length; place += 1) {
      const letter = source[place];
      const row = rows.at(-1);
      if (quoted && letter === '"' && source[place + 1] === '"') {
        row[row.length - 1] += '"';
        place += 1;
      } else if (letter === '"' && (quoted || !row.at(-1))) quoted = !quoted;
      else if (letter === "\t" && !quoted) row.push("");
      else if (letter === "\n" && !quoted) rows.push([""]);
      else row[row.length - 1] += letter;
    }
    const width = Math.max(...rows.map((row) => row.length));
    const line = (row) => `| ${Array.from({ length: width }, (_, at) => (row[at] || "").trim().replace(/\|/g, "\\|").replace(/\n/g, " ")).join(" | ")} |`;
    return [line(rows[0]), `|${"---|".repeat(width)}`, ...rows.slice(1).map(line)].join("\n");
  };

  for (const bar of document.querySelectorAll("[data-toolbar]")) {
    const text = document.getElementById(bar.dataset.toolbar);
    const buttons = [...bar.querySelectorAll("button")];

    // As typed input, so that the browser can undo it.
    const put = (from, to, written, begin, end) => {
      text.focus();
      text.setSelectionRange(from, to);
      if (!document.execCommand("insertText", false, written)) {
        text.setRangeText(written, from, to, "end");
        text.dispatchEvent(new Event("input", { bubbles: true }));
      }
      text.setSelectionRange(from + begin, from + end);
    };
    const around = ({ before, after, text: sample }) => {
      const { selectionStart: from, selectionEnd: to, value } = text;
      const chosen = value.slice(from, to) || sample;
      put(from, to, before + chosen + after, before.length, before.length + chosen.length);
    };
    const lines = ({ line, text: sample }) => {
      const { value } = text;
      const from = value.lastIndexOf("\n", text.selectionStart - 1) + 1;
      const found = value.indexOf("\n", text.selectionEnd);
      const to = found < 0 ? value.length : found;
      const written = (value.slice(from, to) || sample).split("\n")
        .map((part, number) => line.replace("1", number + 1) + part).join("\n");
      put(from, to, written, written.length, written.length);
    };
    const block = ({ block: written }) => {
      const at = text.selectionEnd;
      const lead = !at || text.value.slice(0, at).endsWith("\n\n") ? "" : text.value[at - 1] === "\n" ? "\n" : "\n\n";
      put(at, at, `${lead}${written}\n`, lead.length, lead.length + written.length);
    };
    const act = (button) => {
      const { dataset } = button;
      if ("line" in dataset) lines(dataset);
      else if ("block" in dataset) block(dataset);
      else around(dataset);
    };
    const stop = (chosen) => buttons.forEach((button) => { button.tabIndex = button === chosen ? 0 : -1; });

    for (const button of buttons) button.addEventListener("click", () => { stop(button); act(button); });
    bar.addEventListener("keydown", (event) => {
      const at = buttons.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = buttons[(to + buttons.length) % buttons.length];
      stop(next);
      next.focus();
    });
    text.addEventListener("keydown", (event) => {
      // Safari reports the key that ends a composition as 229, and no longer as part of it.
      if (event.isComposing || event.keyCode === 229) return;
      const key = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey ? event.key.toLowerCase() : "";
      const button = key && buttons.find((one) => one.dataset.key === key);
      if (!button) return;
      event.preventDefault();
      act(button);
    });
    text.addEventListener("paste", (event) => {
      const data = event.clipboardData;
      // Cells copied from a spreadsheet come as a table, and as lines with tabs.
      if (!/<table[\s>]/i.test(data.getData("text/html")) || !data.getData("text/plain").includes("\t")) return;
      event.preventDefault();
      const at = text.selectionStart;
      const lead = !at || text.value.slice(0, at).endsWith("\n\n") ? "" : text.value[at - 1] === "\n" ? "\n" : "\n\n";
      const written = `${lead}${table(data.getData("text/plain"))}\n`;
      put(at, text.selectionEnd, written, written.length, written.length);
    });
    stop(buttons[0]);
    bar.hidden = false;
  }
})();
