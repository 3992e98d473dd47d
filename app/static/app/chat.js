// A room's page: shows the messages of its socket, and sends the user's input.

import { bridge, connect, online } from "./chat/connection.js";
import * as files from "./chat/files.js";
import * as history from "./chat/history.js";
import { messageCame, showJob } from "./chat/jobs.js";
import * as log from "./chat/log.js";
import { colour, me } from "./chat/names.js";
import { handleNotice, inRoom, showUnread } from "./chat/notices.js";
import { endTyping, forgetTyping, peopleHandlers, signTyping, welcomePeople } from "./chat/people.js";
import { load, newKey, save } from "./chat/storage.js";
import * as suggestions from "./chat/suggestions.js";

const READ_AFTER = 500; // ms between a message that is seen and the report of it

const composer = document.getElementById("composer");
const input = document.getElementById("text");
const problem = document.getElementById("problem");
const { room, url } = document.getElementById("chat").dataset;
const onPhone = matchMedia("(pointer: coarse)").matches;

// Messages without a confirmation from the server, as {key, text}; sent again after a reconnect.
let outbox = load("outbox", []);

function showProblem(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

// -- sending -----------------------------------------------------------------------------------

function showPending({ key, text }) {
  const item = log.messageItem({ user: me, text, at: new Date().toISOString() });
  item.classList.add("pending");
  item.querySelector("time").textContent = "sending …";
  item.dataset.key = key;
  log.append(item);
}

// The server has confirmed this message, so it need not be kept.
function settle(key) {
  if (!key) return undefined;
  const sent = outbox.find((entry) => entry.key === key);
  outbox = outbox.filter((entry) => entry.key !== key);
  save("outbox", outbox);
  log.list.querySelector(`.pending[data-key="${CSS.escape(key)}"]`)?.remove();
  return sent;
}

function clearInput() {
  input.value = "";
  save("draft", "");
  showProblem("");
  suggestions.suggest();
  forgetTyping();
}

async function submitFile() {
  try {
    showMessage(await files.upload());
    files.clear();
    clearInput();
    log.scrollToEnd();
    input.focus();
  } catch (error) {
    showProblem(error.message);
  }
}

function submit() {
  if (files.hasFile()) {
    submitFile();
    return;
  }
  const text = input.value.trim();
  if (!text) return;
  const entry = { key: newKey(), text };
  outbox.push(entry);
  save("outbox", outbox);
  showPending(entry);
  log.scrollToEnd();
  clearInput();
  if (online) bridge.send({ type: "message", ...entry });
}

// -- what the user has seen --------------------------------------------------------------------

const isSeen = () => !document.hidden && log.atEnd;
let readId = log.lastId; // the server has recorded that when it made the page
let readTimer;

function reportRead() {
  clearTimeout(readTimer);
  readTimer = setTimeout(() => {
    if (!online || !isSeen() || log.lastId <= readId) return;
    readId = log.lastId;
    bridge.send({ type: "read", id: readId });
  }, READ_AFTER);
}

log.log.addEventListener("scroll", () => {
  if (!isSeen()) return;
  showUnread();
  reportRead();
});
document.addEventListener("visibilitychange", reportRead);

// -- the socket --------------------------------------------------------------------------------

function showMessage(message) {
  settle(message.user === me ? message.key : undefined);
  endTyping(message.user);
  messageCame(message.key);
  log.showMessage(message);
  reportRead();
}

const handlers = {
  ...peopleHandlers,
  welcome({ messages, people, jobs, gap }) {
    if (gap) history.startAt(messages[0].id);
    messages.forEach(showMessage);
    welcomePeople(people);
    for (const job of jobs) showJob(job, bridge.task(job.ticket));
    for (const entry of outbox) bridge.send({ type: "message", ...entry });
    reportRead();
  },
  message: showMessage,
  job(job) {
    showJob(job, bridge.task(job.id)); // its ticket comes with its first message
  },
  notice({ text }) {
    log.showNotice(text);
  },
  error({ text, key }) {
    const refused = settle(key);
    if (refused && !input.value) {
      input.value = refused.text;
      save("draft", refused.text);
    }
    showProblem(text);
  },
};

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

composer.addEventListener("keydown", (event) => {
  // isComposing: Enter ends the spelling of a word in input methods.  Phones have no Shift+Enter.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.target !== input || onPhone) return;
  event.preventDefault();
  submit();
});

input.addEventListener("input", () => {
  save("draft", input.value);
  if (online && input.value.trim()) signTyping((frame) => bridge.send(frame));
});

if (location.pathname !== url) globalThis.history.replaceState(null, "", url); // after a form with an error
document.querySelectorAll("#people li").forEach(colour);
inRoom(room, isSeen);
log.begin();
history.begin();
files.begin(showProblem);
suggestions.begin();
outbox.forEach(showPending);
input.value = input.value || load("draft", "");
if (!onPhone) input.focus();
// What was said in the meantime comes with the welcome.
connect(
  () => `${url}?after=${log.lastId}`,
  (frame) => {
    if (handleNotice(frame)) return;
    if (Object.hasOwn(handlers, frame?.type)) handlers[frame.type](frame);
  },
);
