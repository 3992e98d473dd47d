// The messages of a room: how they are shown, and the position in them.

import { colour, markMine, me, writeText } from "./names.js";
import { showTime } from "./times.js";

const CLOSE = 5 * 60_000; // ms between two messages of a user that are shown as one block

export const log = document.getElementById("log");
export const list = document.getElementById("messages");
const jump = document.getElementById("jump");
const template = document.getElementById("message-template");

const shown = new Set(Array.from(log.querySelectorAll("[data-id]"), (item) => Number(item.dataset.id)));
export let lastId = Number(document.getElementById("chat").dataset.lastId);

// -- one message

export function messageItem({ user, text, at, id, mentions, file, source, badge }) {
  const item = template.content.firstElementChild.cloneNode(true);
  item.dataset.user = user;
  if (id) {
    item.dataset.id = id;
    item.id = `message-${id}`;
  }
  item.classList.toggle("own", user === me);
  item.querySelector(".initial").dataset.initial = Array.from(user)[0];
  item.querySelector(".user").textContent = user;
  if (badge) item.querySelector(".user").after(" ", badgeOf(source, badge));
  const content = item.querySelector(".text");
  if (file) content.before(file.alt ? picture(file) : fileLink(file));
  if (text) writeText(content, text, mentions);
  else content.remove();
  const time = item.querySelector("time");
  time.dateTime = at;
  showTime(time);
  colour(item);
  return item;
}

function badgeOf(source, text) {
  const badge = document.createElement("span");
  badge.className = "badge";
  badge.dataset.source = source;
  badge.textContent = text;
  return badge;
}

function picture({ url, alt, width, height }) {
  const link = document.createElement("a");
  link.className = "picture";
  Object.assign(link, { href: url, target: "_blank", rel: "noopener" });
  const image = document.createElement("img");
  Object.assign(image, { loading: "lazy", width, height, alt, src: url });
  link.append(image);
  return link;
}

function fileLink({ url, name, size }) {
  const link = document.createElement("a");
  link.className = "file";
  Object.assign(link, { href: url, download: "" });
  for (const [className, text] of [["name", name], ["size", size]]) {
    const part = document.createElement("span");
    part.className = className;
    part.textContent = text;
    link.append(part, " ");
  }
  return link;
}

// Messages of a user in a row are one block, with one name.
function join(item) {
  const before = item?.previousElementSibling;
  if (!item?.matches(".message")) return;
  const times = [before, item].map((each) => Date.parse(each?.querySelector("time")?.dateTime ?? ""));
  const isClose = before?.matches(".message") && times[1] - times[0] < CLOSE;
  const badges = [before, item].map((each) => each?.querySelector(".badge")?.textContent);
  item.classList.toggle("follows", Boolean(isClose) && before.dataset.user === item.dataset.user && badges[0] === badges[1]);
}

// -- the position: at the end it stays there, further up it stays as well

export let atEnd = true;

let lastTop = 0;

export function scrollToEnd() {
  log.scrollTop = log.scrollHeight;
  lastTop = log.scrollTop;
  atEnd = true;
  if (jump) jump.hidden = true;
}

log.addEventListener("scroll", () => {
  // Only a way up leaves the end: this event may come after the input has grown, and before the observer below.
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 80) atEnd = true;
  else if (log.scrollTop < lastTop) atEnd = false;
  lastTop = log.scrollTop;
  if (atEnd) jump.hidden = true;
});
jump.addEventListener("click", () => {
  scrollToEnd();
  log.focus();
});
// A phone's keyboard opens, or the input or a text that streams grows.
const grows = new ResizeObserver(() => atEnd && scrollToEnd());
grows.observe(log);
for (const child of log.children) grows.observe(child);

export function append(item) {
  // Messages without a confirmation stay below those that have arrived.
  const firstPending = item.classList.contains("pending") ? null : list.querySelector(".pending");
  list.insertBefore(item, firstPending);
  join(item);
  join(item.nextElementSibling);
  if (atEnd) scrollToEnd();
  else if (item.matches(".message:not(.own)")) jump.hidden = false;
}

export function showMessage(message) {
  if (message.id) {
    if (shown.has(message.id)) return;
    shown.add(message.id);
    lastId = Math.max(lastId, message.id);
  }
  append(messageItem(message));
}

// Older messages, as elements of a page of the server.
export function prepend(items) {
  const fresh = items.filter((item) => !shown.has(Number(item.dataset.id)));
  fresh.forEach(prepare);
  const fromEnd = log.scrollHeight - log.scrollTop;
  const first = list.firstElementChild;
  list.prepend(...fresh);
  fresh.forEach(join);
  join(first);
  log.scrollTop = log.scrollHeight - fromEnd;
}

export function forget() {
  shown.clear();
  list.querySelectorAll(".message:not(.pending), .divider").forEach((item) => item.remove());
}

export function showNotice(text, kind = "") {
  const item = document.createElement("li");
  item.className = `notice ${kind}`.trim();
  item.textContent = text;
  append(item);
}

function prepare(item) {
  shown.add(Number(item.dataset.id));
  colour(item);
  markMine(item);
  item.querySelectorAll("time").forEach(showTime);
}

export function begin() {
  for (const item of list.querySelectorAll(".message")) {
    prepare(item);
    join(item);
  }
  const target = location.hash.startsWith("#message-") ? document.getElementById(location.hash.slice(1)) : null;
  const divider = document.getElementById("first-unread");
  scrollToEnd();
  (target ?? divider)?.scrollIntoView({ block: target ? "center" : "nearest" });
  target?.classList.add("target");
}
