/* <channelsq-live>: keeps a page up to date with the fragments of groups, as {% live %} writes it into the page.
 *
 * Three forms: without further attributes this script has a socket of its own and changes the page, with the help of
 * Turbo if the page has it; with form="htmx" htmx's extension ws has the socket; with form="turbo" a
 * <turbo-stream-source> inside the element has it.
 *
 * Events, which bubble from the element: "channelsq:fragment" before a change (cancelable, detail: action, target,
 * html), "channelsq:stale" after fragments were missed (cancelable: the page is not loaded again), "channelsq:refresh"
 * when it was, "channelsq:refused" if the server does not let the page join.
 */
import { PAGE_STREAM, bridgeOf } from "./livesocket.js";

/** The most fragments that wait while the page is loaded again; with more it is loaded once more. */
const MOST_WAITING = 1000;

/** Milliseconds that an attempt to load the page may take. */
const LOAD_TIMEOUT = 10_000;

/** Seconds between two attempts: the first, and the longest. */
const PAUSES = [1, 30];

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000 * (0.5 + Math.random())));

// -- changes of the page ---------------------------------------------------------------------------

const PLACES = { before: "before", after: "after", append: "append", prepend: "prepend", replace: "replaceWith", update: "replaceChildren" };

/** Removes the elements that a fragment brings anew, such as a message that the page has already. */
function removeSame(fragment, target) {
  for (const child of fragment.children) {
    const same = child.id && document.getElementById(child.id);
    if (same && !same.contains(target)) same.remove();
  }
}

function change(element, swap) {
  const event = new CustomEvent("channelsq:fragment", { detail: swap, bubbles: true, cancelable: true });
  if (!element.dispatchEvent(event)) return;
  const { action, target: id, html } = swap;
  const template = document.createElement("template");
  template.innerHTML = html;
  if (customElements.get("turbo-stream")) {
    const stream = document.createElement("turbo-stream");
    stream.setAttribute("action", action);
    stream.setAttribute("target", id);
    stream.append(template);
    document.documentElement.append(stream); // does its work, and removes itself
    return;
  }
  const target = document.getElementById(id);
  if (!target) return;
  if (action === "remove") {
    target.remove();
    return;
  }
  const fragment = document.importNode(template.content, true);
  if (action !== "replace" && action !== "update") removeSame(fragment, target);
  const added = [...fragment.children];
  target[PLACES[action]](fragment);
  for (const each of added) globalThis.htmx?.process(each);
}

// -- the page is loaded again, after fragments were missed -----------------------------------------

/** @type {Set<LivePage>} */
const elements = new Set();

/** Changes that wait until the page is loaded; null while it is not. */
let waiting = null;
let isLoading = false;
let isAgain = false;

function later(work) {
  if (waiting === null) {
    work();
  } else if (waiting.length < MOST_WAITING) {
    waiting.push(work);
  } else {
    isAgain = true;
  }
}

/** Puts a part of a page in place of the one that is there; its scroll position and the focus stay. */
function replacePart(id, loaded) {
  const [old, fresh] = [document.getElementById(id), loaded.getElementById(id)];
  if (!old || !fresh) return;
  const { scrollTop, scrollLeft } = old;
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  old.replaceWith(document.adoptNode(fresh));
  [fresh.scrollTop, fresh.scrollLeft] = [scrollTop, scrollLeft];
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  globalThis.htmx?.process(fresh);
}

/** Loads the page; returns its document, or null if its user may not see it any more. */
async function load() {
  for (let seconds = PAUSES[0]; ; seconds = Math.min(seconds * 2, PAUSES[1])) {
    try {
      const response = await fetch(location.href, {
        headers: { Accept: "text/html" },
        cache: "no-store",
        signal: AbortSignal.timeout(LOAD_TIMEOUT), // the browser may have kept a line that is dead
      });
      if (response.ok && !response.redirected) {
        return new DOMParser().parseFromString(await response.text(), "text/html");
      }
      if (response.status < 500 && response.status !== 429) return null;
    } catch {
      // No server answers.
    }
    await pause(seconds);
  }
}

async function refresh() {
  if (waiting !== null) {
    isAgain = isLoading;
    return;
  }
  waiting = [];
  await pause(0.02); // several elements of a page have missed something at the same time
  isLoading = true;
  try {
    do {
      isAgain = false;
      const loaded = await load();
      if (loaded === null) {
        for (const element of elements) element.refused();
        return;
      }
      for (const id of new Set([...elements].flatMap((element) => element.parts))) replacePart(id, loaded);
      for (const element of [...elements]) element.renew(loaded.getElementById(element.id));
    } while (isAgain);
  } finally {
    const changes = waiting;
    waiting = null;
    isLoading = false;
    for (const work of changes) work();
    for (const element of elements) element.dispatchEvent(new CustomEvent("channelsq:refresh", { bubbles: true }));
  }
}

class LivePage extends HTMLElement {
  #isExpired = false;
  #stop = () => {};

  connectedCallback() {
    elements.add(this);
    if (this.form === "turbo") this.#keepSource();
    else if (this.form !== "htmx") this.#connect();
  }

  disconnectedCallback() {
    elements.delete(this);
    this.#stop();
  }

  get form() {
    return this.getAttribute("form");
  }

  /** The ids of the elements to load again after fragments were missed. */
  get parts() {
    return (this.getAttribute("refresh") ?? "").split(/\s+/).filter(Boolean);
  }

  get #ticket() {
    return this.getAttribute("ticket");
  }

  stale() {
    const event = new CustomEvent("channelsq:stale", { bubbles: true, cancelable: true });
    if (this.dispatchEvent(event) && (this.parts.length || this.#isExpired)) refresh();
  }

  /** Fragments may have been lost, in all pages at once: they come one after another. */
  lost() {
    pause(PAUSES[0] * 3).then(() => this.stale());
  }

  expired() {
    this.#isExpired = true;
    this.stale();
  }

  refused() {
    this.dispatchEvent(new CustomEvent("channelsq:refused", { bubbles: true }));
  }

  /** Takes the ticket of the page that was loaded; one that has joined stays a member. */
  renew(fresh) {
    if (!fresh) {
      if (this.#isExpired) this.refused();
      return;
    }
    const wasExpired = this.#isExpired;
    this.#isExpired = false;
    if (this.form === "htmx") {
      // Only a new element makes htmx forget the old address.
      if (wasExpired) globalThis.htmx.swap(this, fresh.outerHTML, { swapStyle: "outerHTML" });
      return;
    }
    this.setAttribute("ticket", fresh.getAttribute("ticket"));
    if (wasExpired) this.#join();
  }

  // -- a socket of this script

  #connect() {
    const bridge = bridgeOf(this.getAttribute("path"));
    const onOpen = () => this.#join();
    const onMessage = ({ detail: content }) => {
      if (content?.stream === PAGE_STREAM) this.#receive(content.payload);
    };
    bridge.addEventListener("open", onOpen);
    bridge.addEventListener("message", onMessage);
    this.#stop = () => {
      bridge.removeEventListener("open", onOpen);
      bridge.removeEventListener("message", onMessage);
    };
    if (bridge.state === "open") this.#join();
  }

  #join() {
    const bridge = bridgeOf(this.getAttribute("path"));
    if (this.isConnected && bridge.state === "open") bridge.stream(PAGE_STREAM).send({ join: [this.#ticket] });
  }

  #receive(payload) {
    if (payload.action) {
      // All elements with this socket get it: the first one changes the page.
      const path = this.getAttribute("path");
      const first = [...elements].find((each) => !each.form && each.getAttribute("path") === path);
      if (first === this) later(() => change(this, payload));
    } else if (payload.lost) {
      this.lost();
    } else if (payload.joined === this.#ticket) {
      if (payload.stale) this.stale();
    } else if (payload.refused === this.#ticket) {
      if (payload.expired) this.expired();
      else this.refused();
    } else if (payload.unavailable === this.#ticket) {
      pause(PAUSES[0] * 2).then(() => this.#join());
    }
  }

  // -- <turbo-stream-source>, which does not connect again by itself

  async #keepSource() {
    await customElements.whenDefined("turbo-stream-source");
    let seconds = PAUSES[0];
    while (this.isConnected) {
      const source = this.querySelector("turbo-stream-source");
      const socket = source?.streamSource;
      if (!socket) return;
      socket.addEventListener("open", () => (seconds = PAUSES[0]), { once: true });
      if (socket.readyState < WebSocket.CLOSING) {
        await new Promise((resolve) => socket.addEventListener("close", resolve, { once: true }));
      }
      await pause(seconds);
      seconds = Math.min(seconds * 2, PAUSES[1]);
      if (this.isConnected) source.replaceWith(source.cloneNode());
    }
  }
}

// -- htmx, whose extension has the socket ----------------------------------------------------------

const NOTE = /^<template data-channelsq-page="(stale|expired|lost)">/;

document.addEventListener("htmx:wsBeforeMessage", (event) => {
  const element = event.target;
  if (!(element instanceof LivePage)) return;
  const { message } = event.detail;
  const note = NOTE.exec(message)?.[1];
  if (note) element[note]();
  else if (waiting !== null) later(() => globalThis.htmx.swap(document.body, message, { swapStyle: "none" }));
  else return;
  event.preventDefault();
});

document.addEventListener("htmx:oobBeforeSwap", ({ detail: { fragment, target } }) => {
  if (fragment instanceof Element && fragment.hasAttribute("data-channelsq")) removeSame(fragment, target);
});

customElements.get("channelsq-live") ?? customElements.define("channelsq-live", LivePage);
