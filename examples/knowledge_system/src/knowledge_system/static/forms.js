// Enhancements of forms. The texts are in the page; everything works without this script.
(() => {
  "use strict";

  // Show the typed password; it is submitted as a password field, so that no browser suggests it as text later.
  for (const button of document.querySelectorAll("[data-reveal]")) {
    const field = document.getElementById(button.dataset.reveal);
    const show = (shown) => {
      field.type = shown ? "text" : "password";
      button.setAttribute("aria-pressed", String(shown));
    };
    button.hidden = false;
    button.addEventListener("click", () => show(field.type === "password"));
    field.form.addEventListener("submit", () => show(false));
  }

  // Countdown of the waiting time: visible every second, announced to screen readers only at the end.
  for (const part of document.querySelectorAll("[data-wait]")) {
    const until = Date.now() + Number(part.dataset.wait) * 1000;
    const place = part.querySelector("[data-left]");
    const spoken = (seconds) =>
      (seconds >= 3600 ? part.dataset.hours : seconds >= 60 ? part.dataset.minutes : part.dataset.seconds)
        .replace("{hours}", Math.floor(seconds / 3600))
        .replace("{minutes}", Math.floor(seconds / 60) % 60)
        .replace("{seconds}", seconds % 60);
    const tick = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      if (left > 0) {
        place.textContent = spoken(left);
        setTimeout(tick, 1000);
      } else {
        part.setAttribute("role", "status");
        part.textContent = part.dataset.over;
      }
    };
    tick();
  }

  // Say which files are too large, and by how much, before they are sent.
  const written = (size) => (size >= 1048576 ? `${(size / 1048576).toFixed(1)} MB` : `${Math.max(1, Math.ceil(size / 1024))} KB`);
  for (const field of document.querySelectorAll("input[type=file][data-limit]")) {
    field.addEventListener("change", () => {
      const files = [...field.files].sort((one, other) => other.size - one.size);
      const { limit, most, large, many } = field.dataset;
      const say = (text) => text.replace("{name}", files[0].name).replace("{size}", written(files[0].size))
        .replace("{number}", files.length);
      let error = "";
      if (files[0]?.size > Number(limit)) error = say(large);
      else if (files.length > Number(most)) error = say(many);
      field.setCustomValidity(error);
      field.reportValidity();
    });
  }

  // Print and copy the recovery codes.
  for (const button of document.querySelectorAll("[data-print]")) {
    button.hidden = false;
    button.addEventListener("click", () => window.print());
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    const status = document.querySelector("[data-copied]");
    const lines = () => [...document.querySelectorAll(`${button.dataset.copy} li`)].map((item) => item.textContent.trim());
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(`${lines().join("\n")}\n`);
        status.textContent = status.dataset.copied;
      } catch {
        status.textContent = status.dataset.failed;
      }
    });
  }
})();
