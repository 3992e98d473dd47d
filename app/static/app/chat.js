// A room's page: shows the messages of its socket, and sends the user's input.

import { WebSocketBridge } from "../channelsq/js/websocketbridge.module.js";

const PING_EVERY = 30_000; // ms; the server takes pages for gone that are silent for 150 s
const SILENCE = 75_000; // ms without any frame, although pings are answered
const WELCOME_WITHIN = 20_000; // ms until a connection that says nothing is given up

const chat = document.getElementById("chat");
const log = document.getElementById("log");
const list = document.getElementById("messages");
const composer = document.getElementById("composer");
const input = document.getElementById("text");
const problem = document.getElementById("problem");
const state = document.getElementById("state");
const retry = document.getElementById("retry");
const template = document.getElementById("message-template");

const { room, user: me } = chat.dataset;
const onPhone = matchMedia("(pointer: coarse)").matches;

// -- data that must outlive a lost connection and a reload -------------------------------------

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
    // Storage is full or forbidden: the page still works, a reload loses unsent messages.
  }
}

// Messages without a confirmation from the server, as {key, text}; sent again after a reconnect.
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

// A user who reads further up keeps the position; a user at the end stays at the end.
let atEnd = true;

function append(item) {
  // Messages without a confirmation stay below those that have arrived.
  const firstPending = item.classList.contains("pending") ? null : list.querySelector(".pending");
  list.insertBefore(item, firstPending);
  if (atEnd) scrollToEnd();
}

function scrollToEnd() {
  log.scrollTop = log.scrollHeight;
}

log.addEventListener("scroll", () => {
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
});
// A phone's keyboard opens, or the input grows.
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

// -- arrivals and departures -------------------------------------------------------------------

const RETURN_WITHIN = 20_000; // ms in which those who were here before a lost connection come back, too

// Users who have joined and not left: after an outage of the server all join again, which is not shown.
let known;
// Those of them who are absent now.
const missing = new Set();
let missingTimer;

function welcomePeople(people) {
  const before = known && new Set([...known, ...missing]);
  known = new Set(people);
  clearTimeout(missingTimer);
  missing.clear();
  if (before) {
    people.filter((name) => !before.has(name)).forEach((name) => showNotice(`${name} joined`));
    for (const name of before) if (!known.has(name)) missing.add(name);
    missingTimer = setTimeout(giveUpMissing, RETURN_WITHIN);
  }
  showPeople(people);
}

function giveUpMissing() {
  missing.forEach((name) => showNotice(`${name} left`));
  missing.clear();
}

// The lists in these events may be out of order, so the names follow from the events themselves.
function showJoin(user, people) {
  if (!missing.delete(user) && !known?.has(user) && user !== me) showNotice(`${user} joined`);
  known?.add(user);
  showPeople(people);
}

function showLeave(user, people) {
  if ((missing.delete(user) || known?.delete(user)) && user !== me) showNotice(`${user} left`);
  showPeople(people);
}

// -- sending -----------------------------------------------------------------------------------

function newKey() {
  // crypto.randomUUID() would need https.
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (number) => number.toString(36)).join("-");
}

function showPending({ key, text }) {
  const item = messageItem({ user: me, text, at: new Date().toISOString() });
  item.classList.add("pending");
  item.querySelector("time").textContent = "sending …";
  item.dataset.key = key;
  append(item);
}

// The server has confirmed this message, so it need not be kept.
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
  if (online) bridge.send({ type: "message", ...entry });
}

// -- the socket --------------------------------------------------------------------------------

const handlers = {
  welcome({ messages, people }) {
    messages.forEach(showMessage);
    welcomePeople(people);
    for (const entry of outbox) bridge.send({ type: "message", ...entry });
  },
  message: showMessage,
  join({ user, people }) {
    showJoin(user, people);
  },
  leave({ user, people }) {
    showLeave(user, people);
  },
  people({ people }) {
    known = new Set(people);
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

const bridge = new WebSocketBridge({
  minDelay: 1000,
  silenceTimeout: SILENCE,
  stopCodes: [], // whatever the server says, the page is of no use without it
});

// Whether this connection has received its welcome, after which the room's messages follow.
let online = false;
let opened = false;
let welcomeTimer, pingTimer, countdownTimer;

function show(name, label) {
  // A screen reader must not read a countdown every second.
  state.setAttribute("aria-live", name === state.dataset.state ? "off" : "polite");
  state.dataset.state = name;
  state.querySelector(".label").textContent = label;
  retry.hidden = name !== "offline";
}

function ping() {
  if (online) bridge.send({ type: "ping" });
}

bridge.addEventListener("statechange", () => {
  online = false;
  clearTimeout(welcomeTimer);
  clearInterval(pingTimer);
  clearInterval(countdownTimer);
});

bridge.addEventListener("connecting", () => {
  opened = false;
  show("connecting", "Connecting …");
});

bridge.addEventListener("open", () => {
  opened = true;
  welcomeTimer = setTimeout(() => bridge.reconnect(), WELCOME_WITHIN);
});

bridge.addEventListener("waiting", ({ detail: { delay } }) => {
  const until = performance.now() + delay;
  const tick = () => {
    const seconds = Math.max(1, Math.ceil((until - performance.now()) / 1000));
    show("offline", `Offline, retry in ${seconds} s`);
  };
  countdownTimer = setInterval(tick, 1000);
  tick();
});

// A refused handshake does not say why.  The page at the same address does: it redirects to the login,
// or is gone.
bridge.addEventListener("close", async () => {
  if (opened) return;
  try {
    const page = await fetch(location.href, {
      method: "HEAD",
      redirect: "manual",
      cache: "no-store",
      signal: AbortSignal.timeout(10_000),
    });
    if (page.type === "opaqueredirect" || page.status === 404) location.reload();
  } catch {
    // No server answers: try again.
  }
});

bridge.listen((frame) => {
  if (!online) {
    online = true;
    clearTimeout(welcomeTimer);
    pingTimer = setInterval(ping, PING_EVERY);
    show("online", "Online");
  }
  if (Object.hasOwn(handlers, frame?.type)) handlers[frame.type](frame);
});

document.addEventListener("visibilitychange", () => document.hidden || ping());
addEventListener("offline", () => bridge.reconnect()); // which fails, and so shows it

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

input.addEventListener("keydown", (event) => {
  // isComposing: Enter ends the spelling of a word in input methods.  Phones have no Shift+Enter.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  if (onPhone) return;
  event.preventDefault();
  submit();
});

input.addEventListener("input", () => save("draft", input.value));
retry.addEventListener("click", () => bridge.reconnect());

document.querySelectorAll(".message, #people li").forEach(colour);
document.querySelectorAll(".message time").forEach(showTime);
outbox.forEach(showPending);
input.value = input.value || load("draft", "");
scrollToEnd();
if (!onPhone) input.focus();
bridge.connect(() => `?after=${lastId}`); // what was said in the meantime comes with the welcome
