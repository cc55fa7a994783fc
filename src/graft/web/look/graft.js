"use strict";

// Files go through the route that every client uses; the page hears how far each is, and what the server said.
window.graftUploads = new Map();

window.graftUpload = (files, emit, purpose = "assistants") => {
  for (const file of files) {
    const id = crypto.randomUUID ? crypto.randomUUID() : String(Math.random());
    const form = new FormData();
    form.append("purpose", purpose);
    form.append("file", file);
    const sent = new XMLHttpRequest();
    let told = 0;
    window.graftUploads.set(id, sent);
    emit({ id, name: file.name, state: "begun" });
    sent.upload.onprogress = (event) => {
      if (event.lengthComputable && Date.now() - told > 250) {
        told = Date.now();
        emit({ id, name: file.name, state: "sending", share: event.loaded / event.total });
      }
    };
    sent.onloadend = () => {
      window.graftUploads.delete(id);
      const state = sent.status === 200 ? "sent" : sent.status === 0 ? "stopped" : "refused";
      emit({ id, name: file.name, state, reply: sent.responseText.slice(0, 4000) });
    };
    sent.open("POST", "/v1/files");
    sent.send(form);
  }
};

window.graftStopUpload = (id) => window.graftUploads.get(id)?.abort();

// A table that is wider than the screen is scrolled by the keyboard too.
new MutationObserver(() => {
  for (const one of document.querySelectorAll(".q-table__middle:not([tabindex])")) one.tabIndex = 0;
}).observe(document.documentElement, { childList: true, subtree: true });
