// Data of a room that must outlive a lost connection and a reload.

import { me } from "./names.js";

const { room } = document.getElementById("chat").dataset;
const storeName = (what) => `chat:${me}:${room}:${what}`;

export function load(what, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(storeName(what))) ?? otherwise;
  } catch {
    return otherwise; // no storage here, or something else wrote to it
  }
}

export function save(what, value) {
  try {
    sessionStorage.setItem(storeName(what), JSON.stringify(value));
  } catch {
    // Storage is full or forbidden: the page still works, a reload loses unsent messages.
  }
}

export function newKey() {
  // crypto.randomUUID() would need https.
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (number) => number.toString(36)).join("-");
}
