// Unread messages and mentions, on every page of the site: badges, the title of the document, and toasts.

import { colour, me } from "./names.js";

const MOST_TOASTS = 3;
const TOAST_FOR = 15_000; // ms; the badge of mentions stays

const toasts = document.getElementById("toasts");
const toastTemplate = document.getElementById("toast-template");
const title = document.title;

// The room of this page, and whether its newest messages are seen at this moment.
let room = "";
let isSeen = () => false;

let unread = { rooms: {}, mentions: 0 };

export function inRoom(slug, seen) {
  room = slug;
  isSeen = seen;
}

const capped = (count) => (count < 100 ? String(count) : "99+");

function badge(element, count) {
  if (!element) return;
  element.querySelector(".number").textContent = capped(count);
  element.hidden = !count;
}

export function showUnread() {
  const counts = Object.entries(unread.rooms).filter(([slug]) => slug !== room || !isSeen());
  const total = counts.reduce((sum, [, count]) => sum + count, 0);
  const elsewhere = counts.reduce((sum, [slug, count]) => sum + (slug === room ? 0 : count), 0);
  for (const link of document.querySelectorAll("a[data-room]")) {
    const isHere = link.dataset.room === room;
    badge(link.querySelector(".unread"), isHere ? 0 : (unread.rooms[link.dataset.room] ?? 0));
  }
  badge(document.getElementById("elsewhere"), elsewhere);
  badge(document.getElementById("mentions"), unread.mentions);
  document.title = document.hidden && total ? `(${capped(total)}) ${title}` : title;
}

function showNewest(slug, user, text) {
  const newest = document.querySelector(`.rooms a[data-room="${CSS.escape(slug)}"] .newest`);
  if (!newest) return;
  const by = document.createElement("b");
  const excerpt = document.createElement("span");
  excerpt.className = "excerpt";
  by.textContent = `${user}:`;
  excerpt.textContent = text;
  newest.replaceChildren(by, " ", excerpt);
}

function toast({ user, name, text, url }) {
  const item = toastTemplate.content.firstElementChild.cloneNode(true);
  const author = item.querySelector(".user");
  author.textContent = author.dataset.user = user;
  colour(author);
  item.querySelector(".room").textContent = name;
  item.querySelector(".excerpt").textContent = text;
  item.querySelector("a").href = url;
  item.querySelector("button").addEventListener("click", () => {
    const next = item.nextElementSibling ?? item.previousElementSibling;
    item.remove();
    (next?.querySelector("button") ?? document.getElementById("text") ?? document.querySelector(".brand")).focus();
  });
  toasts.append(item);
  const timer = setInterval(() => {
    if (item.isConnected && item.matches(":hover, :focus-within")) return;
    clearInterval(timer);
    item.remove();
  }, TOAST_FOR);
  while (toasts.children.length > MOST_TOASTS) toasts.firstElementChild.remove();
}

const handlers = {
  unread({ rooms, mentions }) {
    unread = { rooms, mentions };
  },
  said({ room: slug, user, text }) {
    showNewest(slug, user, text);
    if (user !== me && !(slug === room && isSeen())) unread.rooms[slug] = (unread.rooms[slug] ?? 0) + 1;
  },
  mention(mention) {
    if (mention.room === room && isSeen()) return;
    unread.mentions += 1;
    toast(mention);
  },
};

// Handle a frame if it is a notice; return whether it is.
export function handleNotice(frame) {
  if (!Object.hasOwn(handlers, frame?.type)) return false;
  handlers[frame.type](frame);
  showUnread();
  return true;
}

document.addEventListener("visibilitychange", showUnread);
