// A WebSocket that comes back by itself.

const FIRST_WAIT = 1; // seconds
const LONGEST_WAIT = 30;
const WELCOME_WITHIN = 20; // seconds until a connection that says nothing is given up
const PING_EVERY = 30; // seconds; the server takes pages for gone that are silent for 150
const SILENCE = 75; // seconds without any frame, although pings are answered

export class RoomSocket {
  #socket = null;
  #failures = 0;
  #heardAt = 0;
  #online = false;
  #options;
  #timers = new Set();

  // address(): the URL for the next attempt.  onState("connecting" | "online" | "offline", seconds).
  // onFrame(object): each frame; the first of a connection is its welcome.
  constructor(options) {
    this.#options = options;
    addEventListener("online", () => this.#hurry());
    addEventListener("offline", () => this.#socket && this.#lost());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
    // A page that comes back from the browser's cache had its socket closed.
    addEventListener("pageshow", (event) => event.persisted && this.connect());
  }

  connect() {
    this.#drop();
    this.#options.onState("connecting");
    const socket = new WebSocket(this.#options.address());
    let opened = false;
    this.#socket = socket;
    this.#heardAt = Date.now();
    this.#after(WELCOME_WITHIN, () => this.#online || this.#lost());
    socket.onopen = () => { opened = true; };
    socket.onmessage = ({ data }) => this.#heard(data);
    socket.onclose = () => {
      if (!opened) this.#askWhy();
      this.#lost();
    };
  }

  // False if there is no connection; then nothing was sent.
  send(frame) {
    if (!this.#online) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  #heard(data) {
    this.#heardAt = Date.now();
    if (!this.#online) {
      this.#online = true;
      this.#failures = 0;
      this.#options.onState("online");
      this.#keepAlive();
    }
    let frame = null;
    try {
      frame = JSON.parse(data);
    } catch {
      console.warn("a frame that is no JSON was left out", data);
    }
    if (frame?.type) this.#options.onFrame(frame);
  }

  #keepAlive() {
    this.#after(PING_EVERY, () => {
      if (Date.now() - this.#heardAt > SILENCE * 1000) return this.#lost();
      this.send({ type: "ping" });
      this.#keepAlive();
    });
  }

  // Wait, each time twice as long, and never all pages the same time: else a server that comes back
  // is met by everybody at once.
  #lost() {
    this.#drop();
    const longest = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures++);
    const until = Date.now() + longest * (0.5 + Math.random() / 2) * 1000;
    const tick = () => {
      const left = (until - Date.now()) / 1000;
      if (left <= 0) return this.connect();
      this.#options.onState("offline", Math.ceil(left));
      this.#after(Math.min(1, left), tick);
    };
    tick();
  }

  // The network is back, or somebody looks at the page again: do not wait any longer.
  #hurry() {
    if (!this.#socket) this.connect();
    else this.send({ type: "ping" });
  }

  // A refused handshake does not say why.  The page at the same address does: it redirects to the login,
  // or is gone.
  async #askWhy() {
    try {
      const page = await fetch(location.href, {
        method: "HEAD",
        redirect: "manual",
        cache: "no-store",
        signal: AbortSignal.timeout(10_000),
      });
      if (page.type === "opaqueredirect" || page.status === 404) location.reload();
    } catch {
      // No server at all: there is nothing to do but to try again.
    }
  }

  #drop() {
    this.#timers.forEach(clearTimeout);
    this.#timers.clear();
    this.#online = false;
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
      this.#socket = null;
    }
  }

  #after(seconds, action) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, seconds * 1000);
    this.#timers.add(timer);
  }
}
