// A room's page: shows what its socket brings, and sends what is typed.

import { RoomSocket } from "./socket.js";

const chat = document.getElementById("chat");
const log = document.getElementById("log");
const composer = document.getElementById("composer");
const input = document.getElementById("text");
const problem = document.getElementById("problem");
const state = document.getElementById("state");
const retry = document.getElementById("retry");
const template = document.getElementById("message-template");

const { room, user: me } = chat.dataset;

// -- what must outlive a lost connection and a reload ------------------------------------------

const storeName = (what) => `chat:${me}:${room}:${what}`;

function load(what, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(storeName(what))) ?? otherwise;
  } catch {
    return otherwise; // no storage here, or something else wrote to it
  }
}

function save(what, value) {
  try {
    sessionStorage.setItem(storeName(what), JSON.stringify(value));
  } catch {
    // Storage is full or forbidden: the page still works, a reload loses what was not sent.
  }
}

// What was sent and has not come back from the server yet, as {key, text}; sent again after a reconnect.
let outbox = load("outbox", []);
let lastId = Number(chat.dataset.lastId);
const shown = new Set(Array.from(log.querySelectorAll("[data-id]"), (item) => Number(item.dataset.id)));

// -- showing -----------------------------------------------------------------------------------

function hueOf(name) {
  let hash = 0;
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 360;
  return hash;
}

function colour(element) {
  element.style.setProperty("--hue", hueOf(element.dataset.user));
}

function showTime(time) {
  const date = new Date(time.dateTime);
  if (Number.isNaN(date.getTime())) return;
  const today = date.toDateString() === new Date().toDateString();
  time.textContent = date.toLocaleString([], today ? { timeStyle: "short" } : { dateStyle: "short", timeStyle: "short" });
  time.title = date.toLocaleString();
}

// Only ever textContent: what users type is text, never markup.
function messageItem({ user, text, at, id }) {
  const item = template.content.firstElementChild.cloneNode(true);
  item.dataset.user = user;
  if (id) item.dataset.id = id;
  item.classList.toggle("own", user === me);
  item.querySelector(".user").textContent = user;
  item.querySelector(".text").textContent = text;
  const time = item.querySelector("time");
  time.dateTime = at;
  showTime(time);
  colour(item);
  return item;
}

// Those who read further up stay where they are; those at the end stay at the end.
let atEnd = true;

function append(item) {
  // What is still on its way stays below what has arrived.
  const firstPending = item.classList.contains("pending") ? null : log.querySelector(".pending");
  log.insertBefore(item, firstPending);
  if (atEnd) scrollToEnd();
}

function scrollToEnd() {
  log.scrollTop = log.scrollHeight;
}

log.addEventListener("scroll", () => {
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
});
// A phone's keyboard opens, the text to be sent grows.
new ResizeObserver(() => atEnd && scrollToEnd()).observe(log);

function showMessage(message) {
  settle(message.user === me ? message.key : undefined);
  if (message.id) {
    if (shown.has(message.id)) return;
    shown.add(message.id);
    lastId = Math.max(lastId, message.id);
  }
  append(messageItem(message));
}

function showNotice(text) {
  const item = document.createElement("li");
  item.className = "notice";
  item.textContent = text;
  append(item);
}

function showPeople(people) {
  const items = people.map((name) => {
    const item = document.createElement("li");
    item.dataset.user = item.textContent = name;
    colour(item);
    return item;
  });
  document.getElementById("people").replaceChildren(...items);
  document.getElementById("people-count").textContent = people.length;
}

function showProblem(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

// -- sending -----------------------------------------------------------------------------------

function newKey() {
  // crypto.randomUUID() would need https.
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (number) => number.toString(36)).join("-");
}

function showPending({ key, text }) {
  const item = messageItem({ user: me, text, at: new Date().toISOString() });
  item.classList.add("pending");
  item.dataset.key = key;
  append(item);
}

// The server has answered for this message: it is no longer ours to keep.
function settle(key) {
  if (!key) return undefined;
  const sent = outbox.find((entry) => entry.key === key);
  outbox = outbox.filter((entry) => entry.key !== key);
  save("outbox", outbox);
  log.querySelector(`.pending[data-key="${CSS.escape(key)}"]`)?.remove();
  return sent;
}

function submit() {
  const text = input.value.trim();
  if (!text) return;
  const entry = { key: newKey(), text };
  outbox.push(entry);
  save("outbox", outbox);
  showPending(entry);
  scrollToEnd();
  input.value = "";
  save("draft", "");
  showProblem("");
  socket.send({ type: "message", ...entry });
}

// -- the socket --------------------------------------------------------------------------------

const handlers = {
  welcome({ messages, people }) {
    messages.forEach(showMessage);
    showPeople(people);
    for (const entry of outbox) socket.send({ type: "message", ...entry });
  },
  message: showMessage,
  join({ user, people }) {
    showNotice(`${user} joined`);
    showPeople(people);
  },
  leave({ user, people }) {
    showNotice(`${user} left`);
    showPeople(people);
  },
  people({ people }) {
    showPeople(people);
  },
  notice({ text }) {
    showNotice(text);
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

const labels = {
  connecting: () => "Connecting …",
  online: () => "Online",
  offline: (seconds) => `Offline, retry in ${seconds} s`,
};

const socket = new RoomSocket({
  address() {
    const url = new URL(location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.hash = "";
    url.search = `?after=${lastId}`; // what was said in the meantime comes with the welcome
    return url;
  },
  onState(name, seconds) {
    const label = state.querySelector(".label");
    // A countdown that is read out every second helps nobody.
    state.setAttribute("aria-live", name === state.dataset.state ? "off" : "polite");
    state.dataset.state = name;
    label.textContent = labels[name](seconds);
    retry.hidden = name !== "offline";
  },
  onFrame(frame) {
    if (Object.hasOwn(handlers, frame.type)) handlers[frame.type](frame);
  },
});

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

input.addEventListener("keydown", (event) => {
  // isComposing: Enter ends the spelling of a word in input methods.  Phones have no Shift+Enter.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  if (matchMedia("(pointer: coarse)").matches) return;
  event.preventDefault();
  submit();
});

input.addEventListener("input", () => save("draft", input.value));
retry.addEventListener("click", () => socket.connect());

document.querySelectorAll(".message, #people li").forEach(colour);
document.querySelectorAll(".message time").forEach(showTime);
outbox.forEach(showPending);
input.value = input.value || load("draft", "");
scrollToEnd();
socket.connect();
