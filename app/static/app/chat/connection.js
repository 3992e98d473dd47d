// The socket of a room: what is shown of it, signs of life, and the way to the log-in page.

import { WebSocketBridge } from "../../channelsq/js/websocketbridge.module.js";

const PING_EVERY = 30_000; // ms; the server takes pages for gone that are silent for 150 s
const SILENCE = 75_000; // ms without any frame, although pings are answered
const WELCOME_WITHIN = 20_000; // ms until a connection that says nothing is given up

const state = document.getElementById("state");
const retry = document.getElementById("retry");

export const bridge = new WebSocketBridge({
  minDelay: 1000,
  silenceTimeout: SILENCE,
  stopCodes: [], // whatever the server says, the page is of no use without it
});

// Whether this connection has received its welcome, after which the room's messages follow.
export let online = false;
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

document.addEventListener("visibilitychange", () => document.hidden || ping());
addEventListener("offline", () => bridge.reconnect()); // which fails, and so shows it
retry.addEventListener("click", () => bridge.reconnect());

// Connect, and hand each frame to `handle`.
export function connect(address, handle) {
  bridge.listen((frame) => {
    if (!online) {
      online = true;
      clearTimeout(welcomeTimer);
      pingTimer = setInterval(ping, PING_EVERY);
      show("online", "Online");
    }
    handle(frame);
  });
  bridge.connect(address);
}
