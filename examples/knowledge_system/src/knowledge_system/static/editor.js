// The buttons above a text in Markdown: one stop of the Tab key, arrows between them (WAI-ARIA, toolbar pattern).
(() => {
  "use strict";
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
      const key = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey ? event.key.toLowerCase() : "";
      const button = key && buttons.find((one) => one.dataset.key === key);
      if (!button) return;
      event.preventDefault();
      act(button);
    });
    stop(buttons[0]);
    bar.hidden = false;
  }
})();
