// The people in the room: arrivals, departures, and typing.

import { showNotice } from "./log.js";
import { colour, me } from "./names.js";

const RETURN_WITHIN = 20_000; // ms in which those who were here before a lost connection come back, too
const TYPING_FOR = 5_000; // ms after the last sign
const TYPING_EVERY = 3_000; // ms between two signs of this page

// Users who have joined and not left: after an outage of the server all join again, which is not shown.
let known;
// Those of them who are absent now.
const missing = new Set();
let missingTimer;

export const namesHere = () => [...(known ?? [])];

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

export function welcomePeople(people) {
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

// -- typing: a sign is shown for some seconds, and a message of its user ends it

const line = document.getElementById("typing");
const typing = new Map();
let lastSign = -Infinity;

function showTyping() {
  const names = [...typing.keys()];
  const many = names.length > 2 ? `${names.length} people are typing …` : `${names.join(" and ")} are typing …`;
  line.textContent = names.length > 1 ? many : names.length ? `${names[0]} is typing …` : "";
}

export function endTyping(user) {
  clearTimeout(typing.get(user));
  if (typing.delete(user)) showTyping();
}

// Say that this user is typing, through `send`, unless the page has just done so.
export function signTyping(send) {
  const now = performance.now();
  if (now - lastSign < TYPING_EVERY) return;
  lastSign = now;
  send({ type: "typing" });
}

// After a message the next key is a new beginning.
export function forgetTyping() {
  lastSign = -Infinity;
}

export const peopleHandlers = {
  // The lists in these events may be out of order, so the names follow from the events themselves.
  join({ user, people }) {
    if (!missing.delete(user) && !known?.has(user) && user !== me) showNotice(`${user} joined`);
    known?.add(user);
    showPeople(people);
  },
  leave({ user, people }) {
    if ((missing.delete(user) || known?.delete(user)) && user !== me) showNotice(`${user} left`);
    endTyping(user);
    showPeople(people);
  },
  people({ people }) {
    known = new Set(people);
    showPeople(people);
  },
  typing({ user }) {
    if (user === me) return;
    clearTimeout(typing.get(user));
    typing.set(user, setTimeout(endTyping, TYPING_FOR, user));
    showTyping();
  },
};
