"use strict";

// Forms with data-passkey: gets options from the site and a credential from the browser, and sends that with the form.
(() => {
  if (!window.PublicKeyCredential?.parseRequestOptionsFromJSON) return;

  const answer = async (form) => {
    const response = await fetch(form.dataset.passkey, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: fields(form),
    });
    const said = await response.json();
    if (!response.ok) throw Object.assign(new Error(said.detail), { problem: said.type });
    const credential =
      "make" in form.dataset
        ? await navigator.credentials.create({
            publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(said),
          })
        : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(said) });
    return JSON.stringify(credential.toJSON());
  };

  const fields = (form) => {
    const values = new URLSearchParams(new FormData(form));
    values.delete("answer");
    return values;
  };

  const why = (error, words) => {
    if (error.name === "NotAllowedError") return words.cancelled;
    if (error.name === "InvalidStateError") return words.known;
    return error.problem ? error.message : words.failed;
  };

  for (const form of document.querySelectorAll("form[data-passkey]")) {
    form.hidden = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const notice = form.querySelector("[role=alert]");
      const button = form.querySelector("button");
      notice.hidden = true;
      button.disabled = true;
      try {
        form.elements.answer.value = await answer(form);
        form.submit();
      } catch (error) {
        if (error.problem?.endsWith("/confirmation-required")) {
          location.assign(`/account/confirm?next=${encodeURIComponent(location.pathname)}`);
          return;
        }
        notice.textContent = why(error, form.dataset);
        notice.hidden = false;
        button.disabled = false;
      }
    });
  }
})();
