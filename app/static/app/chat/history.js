// Older messages: the link above the messages loads them when it comes into view, or is chosen.

import { forget, log, prepend } from "./log.js";

let isLoading = false;

async function loadOlder() {
  const link = document.getElementById("older");
  if (!link || isLoading) return;
  isLoading = true;
  const label = link.textContent;
  link.textContent = "Loading …";
  // A screen reader must not read the history aloud.
  log.setAttribute("aria-live", "off");
  try {
    const response = await fetch(link.href, { signal: AbortSignal.timeout(20_000) });
    if (response.redirected || response.status === 404) return location.reload(); // logged out, or the room is gone
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const hadFocus = document.activeElement === link;
    prepend(Array.from(page.querySelectorAll("#messages .message"), (item) => document.adoptNode(item)));
    const next = page.getElementById("older");
    link.textContent = label;
    if (next) {
      link.href = next.getAttribute("href");
    } else {
      link.remove();
      if (hadFocus) log.focus();
    }
  } catch {
    link.textContent = "Older messages could not be loaded. Try again";
    return;
  } finally {
    isLoading = false;
    setTimeout(() => log.removeAttribute("aria-live"), 1000);
  }
}

// After a long absence the page begins anew with a message; those before it are loaded as older ones.
export function startAt(id) {
  forget();
  const link = document.getElementById("older") ?? document.createElement("a");
  const isNew = !link.isConnected;
  Object.assign(link, { id: "older", className: "quiet", rel: "prev", textContent: "Older messages" });
  link.href = `${document.getElementById("chat").dataset.url}?before=${id}`;
  if (!isNew) return;
  log.querySelector(".earlier").append(link);
  begin();
}

export function begin() {
  const link = document.getElementById("older");
  if (!link) return;
  link.addEventListener("click", (event) => {
    event.preventDefault();
    loadOlder();
  });
  new IntersectionObserver(([entry]) => entry.isIntersecting && log.scrollTop < 200 && loadOlder(), {
    root: log,
    rootMargin: "120px 0px 0px",
  }).observe(link);
}
