// The progress of a report: the server sends one event for each change; a stream that ends early is reopened by
// the browser.
(() => {
  "use strict";
  const task = document.querySelector("[data-task]");
  if (!task) return;
  const stages = JSON.parse(task.dataset.stages);
  const events = new EventSource(task.dataset.task);
  events.onmessage = (event) => {
    const status = JSON.parse(event.data);
    if (status.state !== "waiting" && status.state !== "running") {
      events.close();
      return location.replace(location.pathname);
    }
    task.querySelector("progress").value = status.progress;
    task.querySelector("[data-percent]").textContent = Math.round(status.progress * 100);
    if (status.stage) task.querySelector("[data-stage]").textContent = stages[status.stage] || status.stage;
  };
})();
