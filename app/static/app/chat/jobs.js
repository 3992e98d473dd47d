// The tasks of the room: the assistant's answer while it is written, and the progress of imports.

import { atEnd, scrollToEnd, showNotice } from "./log.js";
import { colour, me } from "./names.js";

const ASSISTANT = "assistant";
const LATEST = 15_000; // ms for which a finished answer waits for its message

const area = document.getElementById("jobs");
const template = document.getElementById("job-template");
const cards = new Map();

// Show a job until it ends; `task` is the live task of the browser library.
export function showJob(job, task) {
  if (cards.has(job.key)) return;
  const card = template.content.firstElementChild.cloneNode(true);
  cards.set(job.key, card);
  card.classList.add(job.kind);
  const name = card.querySelector(".user");
  card.dataset.user = name.textContent = job.kind === "answer" ? ASSISTANT : job.user;
  card.setAttribute("aria-label", job.kind === "answer" ? `Answer to ${job.user}` : `Import of ${job.user}`);
  colour(card);
  const cancel = card.querySelector(".cancel");
  cancel.textContent = job.kind === "answer" ? "Stop" : "Cancel";
  cancel.hidden = job.user !== me;
  cancel.addEventListener("click", () => {
    cancel.disabled = true;
    task.cancel().then((cancelled) => (cancel.disabled = cancelled));
  });
  if (job.kind === "answer") followAnswer(card, job, task);
  else followImport(card, job, task);
  area.append(card);
  if (atEnd) scrollToEnd();
  task.addEventListener("state", ({ detail: { state } }) => {
    if (state === "unknown" || state === "refused") close(job.key);
  });
}

function close(key) {
  const card = cards.get(key);
  if (card?.contains(document.activeElement)) document.getElementById("text").focus();
  cards.delete(key);
  card?.remove();
}

// The message with the answer has come, so the text that streamed is not needed any more.
export function messageCame(key) {
  if (cards.get(key)?.matches(".answer")) close(key);
}

function followAnswer(card, job, task) {
  const text = card.querySelector(".text");
  card.querySelector(".about").textContent = `is answering ${job.user}`;
  card.classList.add("writing");
  task.ontext = (change) => (text.textContent = change.text);
  task.then(
    () => setTimeout(close, LATEST, job.key),
    (error) => {
      close(job.key);
      if (error.state === "failure") showNotice(`No answer: ${error.message}`, "failed");
    },
  );
}

function followImport(card, job, task) {
  const bar = card.querySelector("progress");
  const text = card.querySelector(".text");
  card.querySelector(".about").textContent = "is importing messages";
  text.textContent = "Waiting for a worker …";
  bar.hidden = false;
  bar.setAttribute("aria-label", `Import of ${job.user}`);
  task.onprogress = ({ state, done, total }) => {
    if (state !== "started" || !total) return;
    bar.max = total;
    bar.value = done;
    text.textContent = `${done} of ${total} messages`;
  };
  task.then(
    (count) => end(job, `${job.user} imported ${count} messages`),
    (error) => {
      if (error.state === "revoked") end(job, `${job.user} cancelled the import`);
      else end(job, error.state === "failure" ? `The import of ${job.user} failed: ${error.message}` : "", "failed");
    },
  );
}

function end(job, text, kind) {
  close(job.key);
  if (text) showNotice(text, kind);
}
