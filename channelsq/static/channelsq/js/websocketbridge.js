/* channelsq's browser library: a WebSocket that comes back, JSON both ways, and several streams on one socket.
 *
 *     <script src="{% static 'channelsq/js/websocketbridge.js' %}"></script>
 *     const bridge = new channels.WebSocketBridge();
 *
 * As a module: import { WebSocketBridge } from ".../channelsq/js/websocketbridge.mjs".
 */
(() => {
  "use strict";

  /**
   * @typedef {object} SocketOptions
   * @property {number} minDelay ms: the longest first wait before connecting again
   * @property {number} maxDelay ms: the longest wait there is
   * @property {number} factor by which the longest wait grows with each attempt
   * @property {number} maxRetries attempts in a row after which it gives up
   * @property {number} minUptime ms that a connection must last for the waits to begin anew
   * @property {number} connectionTimeout ms that an attempt may take
   * @property {number} maxQueue messages that are kept while there is no connection
   * @property {number[]} stopCodes close codes after which it does not connect again
   */

  /** @type {Readonly<SocketOptions>} */
  const DEFAULTS = Object.freeze({
    minDelay: 500,
    maxDelay: 30000,
    factor: 2,
    maxRetries: Infinity,
    minUptime: 5000,
    connectionTimeout: 10000,
    maxQueue: 100,
    stopCodes: [1000],
  });

  const { CONNECTING, OPEN, CLOSING, CLOSED } = WebSocket;

  /** The URL of a socket: a path is one of this page's site. */
  function socketUrl(url) {
    const base = new URL(location.href);
    base.protocol = base.protocol === "https:" ? "wss:" : "ws:";
    if (url === undefined || url === null) return `${base.protocol}//${base.host}`;
    return String(url).startsWith("/") && !String(url).startsWith("//")
      ? `${base.protocol}//${base.host}${url}`
      : String(url);
  }

  /** Adds the properties onopen, onmessage, … to a class of event targets. */
  function withHandlers(target, types) {
    for (const type of types) {
      const key = `on${type}`;
      const handlers = new WeakMap();
      Object.defineProperty(target.prototype, key, {
        get() {
          return handlers.get(this) ?? null;
        },
        set(handler) {
          const before = handlers.get(this);
          if (before) this.removeEventListener(type, before);
          if (typeof handler === "function") {
            handlers.set(this, handler);
            this.addEventListener(type, handler);
          } else {
            handlers.delete(this);
          }
        },
      });
    }
  }

  /**
   * A WebSocket that connects again when its connection ends.
   *
   * Its events are those of a WebSocket, each connection's "open" and "close"; besides "statechange", with the new
   * state in `detail`.  What is sent without a connection is kept, up to `maxQueue` messages.
   */
  class ReconnectingSocket extends EventTarget {
    /**
     * @param {string | (() => string)} [url] an absolute URL, or a path on this site; or what gives one for each attempt
     * @param {string | string[]} [protocols] subprotocols
     * @param {Partial<SocketOptions>} [options]
     */
    constructor(url, protocols, options) {
      super();
      const unknown = Object.keys(options ?? {}).filter((name) => !(name in DEFAULTS));
      if (unknown.length) {
        throw new TypeError(`unknown options ${unknown.join(", ")}; there are ${Object.keys(DEFAULTS).join(", ")}`);
      }
      this._url = typeof url === "function" ? url : () => url;
      /** Where the last attempt went. */
      this.url = "";
      this.options = Object.freeze({ ...DEFAULTS, ...options });
      /** @type {"connecting" | "open" | "waiting" | "closed"} */
      this.state = "closed";
      /** Attempts since a connection that lasted. */
      this.retries = 0;
      this.binaryType = "blob";
      this._protocols = protocols ?? [];
      /** @type {WebSocket | null} */
      this._socket = null;
      this._queue = [];
      this._timer = 0;
      this._openedAt = 0;
      this._wake = () => {
        if (this.state === "waiting" && document.visibilityState === "visible" && navigator.onLine) this._connect();
      };
      addEventListener("online", this._wake);
      document.addEventListener("visibilitychange", this._wake);
      this._connect();
    }

    get readyState() {
      if (this.state === "closed") return CLOSED;
      return this.state === "open" ? this._socket.readyState : CONNECTING;
    }

    get protocol() {
      return this._socket?.protocol ?? "";
    }

    get bufferedAmount() {
      return this._socket?.bufferedAmount ?? 0;
    }

    /** How many messages wait for a connection. */
    get queued() {
      return this._queue.length;
    }

    /**
     * Sends a message, as soon as there is a connection.
     *
     * @param {string | ArrayBuffer | ArrayBufferView | Blob} data
     * @throws {DOMException} InvalidStateError: it is closed for good; QuotaExceededError: `maxQueue` messages wait
     */
    send(data) {
      if (this.state === "closed") {
        throw new DOMException("the socket is closed, and does not connect again", "InvalidStateError");
      }
      if (this.state === "open" && this._socket.readyState === OPEN) {
        this._socket.send(data);
      } else if (this._queue.length < this.options.maxQueue) {
        this._queue.push(data);
      } else {
        throw new DOMException(
          `${this._queue.length} messages wait for a connection, which is maxQueue; this one was not sent`,
          "QuotaExceededError",
        );
      }
    }

    /**
     * Closes the connection, for good.
     *
     * @param {number} [code] 1000, or 3000 to 4999
     * @param {string} [reason]
     */
    close(code = 1000, reason = "") {
      if (this.state === "closed") return;
      const socket = this._socket;
      const waiting = this.state === "waiting";
      this._end();
      if (waiting || !socket) {
        this.dispatchEvent(new CloseEvent("close", { code, reason, wasClean: true }));
      } else {
        socket.close(code, reason);
      }
    }

    _end() {
      clearTimeout(this._timer);
      removeEventListener("online", this._wake);
      document.removeEventListener("visibilitychange", this._wake);
      this._queue = [];
      this._setState("closed");
    }

    _setState(state) {
      this.state = state;
      this.dispatchEvent(new CustomEvent("statechange", { detail: state }));
    }

    _connect() {
      clearTimeout(this._timer);
      this._setState("connecting");
      this.url = socketUrl(this._url());
      const socket = new WebSocket(this.url, this._protocols);
      socket.binaryType = this.binaryType;
      this._socket = socket;
      this._openedAt = 0;
      this._timer = setTimeout(() => socket.close(), this.options.connectionTimeout);
      socket.addEventListener("open", () => this._opened(socket));
      socket.addEventListener("message", (event) => this._received(event));
      socket.addEventListener("error", () => this.dispatchEvent(new Event("error")));
      socket.addEventListener("close", (event) => this._closed(socket, event));
    }

    _opened(socket) {
      if (socket !== this._socket || this.state !== "connecting") return;
      clearTimeout(this._timer);
      this._openedAt = performance.now();
      for (const data of this._queue.splice(0)) socket.send(data);
      this._setState("open");
      this.dispatchEvent(new Event("open"));
    }

    _received(event) {
      const { data, origin } = event;
      this.dispatchEvent(new MessageEvent("message", { data, origin }));
    }

    _closed(socket, event) {
      if (socket !== this._socket) return;
      clearTimeout(this._timer);
      this._socket = null;
      const { code, reason, wasClean } = event;
      if (this.state !== "closed") {
        if (this._openedAt && performance.now() - this._openedAt >= this.options.minUptime) this.retries = 0;
        if (this.options.stopCodes.includes(code) || this.retries >= this.options.maxRetries) this._end();
        else this._wait();
      }
      this.dispatchEvent(new CloseEvent("close", { code, reason, wasClean }));
    }

    _wait() {
      const { minDelay, maxDelay, factor } = this.options;
      // Anywhere up to the longest wait, so that the clients of a server that was away do not come all at once.
      const delay = Math.random() * Math.min(maxDelay, minDelay * factor ** this.retries);
      this.retries += 1;
      this._timer = setTimeout(() => this._connect(), delay);
      this._setState("waiting");
    }
  }

  Object.assign(ReconnectingSocket, { CONNECTING, OPEN, CLOSING, CLOSED, DEFAULTS });
  Object.assign(ReconnectingSocket.prototype, { CONNECTING, OPEN, CLOSING, CLOSED });
  withHandlers(ReconnectingSocket, ["open", "message", "close", "error", "statechange"]);

  /**
   * Speaks with consumers: JSON on a socket that comes back, and streams on it.
   *
   * Its events: "open", "close" and "statechange", as the socket's; "message", with what came in `detail`; "binary",
   * with the data of a binary frame in `detail`; "error", with an Error in `detail`, for a frame that is no JSON.
   *
   * @example
   * const bridge = new channels.WebSocketBridge();
   * bridge.connect("/chat/");
   * bridge.listen((content, stream) => console.log(content));
   * bridge.send({ text: "hello" });
   */
  class WebSocketBridge extends EventTarget {
    /** @param {Partial<SocketOptions>} [options] of every socket that it makes */
    constructor(options) {
      super();
      this.options = { ...options };
      /** @type {ReconnectingSocket | null} */
      this.socket = null;
      /** @type {Record<string, (payload: any, stream: string) => void>} */
      this.streams = Object.create(null);
      /** @type {((content: any, stream: string | null) => void) | null} */
      this.default_cb = null;
      this._listening = false;
    }

    /**
     * Connects to a server, and again whenever the connection ends.
     *
     * @param {string | (() => string)} [url] an absolute URL, or a path on this site; or what gives one for each attempt
     * @param {string | string[]} [protocols] subprotocols
     * @param {Partial<SocketOptions>} [options]
     */
    connect(url, protocols, options) {
      this.socket?.close();
      const socket = new ReconnectingSocket(url, protocols, { ...this.options, ...options });
      this.socket = socket;
      for (const type of ["open", "close", "statechange"]) {
        socket.addEventListener(type, (event) => {
          if (this.socket === socket) this.dispatchEvent(new event.constructor(type, event));
        });
      }
      socket.addEventListener("message", (event) => {
        if (this.socket === socket) this._received(event.data);
      });
    }

    /** "idle" before connect(); then "connecting", "open", "waiting" for the next attempt, or "closed" for good. */
    get state() {
      return this.socket?.state ?? "idle";
    }

    /**
     * Begins to hand on what comes.
     *
     * @param {(content: any, stream: null) => void} [callback] gets what belongs to no stream
     */
    listen(callback) {
      this.default_cb = callback ?? null;
      this._listening = true;
    }

    /**
     * Hands what comes on a stream to a callback of its own.
     *
     * @param {string} stream
     * @param {(payload: any, stream: string) => void} callback
     */
    demultiplex(stream, callback) {
      this.streams[stream] = callback;
    }

    /**
     * Sends a message; without a connection it is kept until there is one.
     *
     * @param {any} content what JSON can say
     * @throws {DOMException} as ReconnectingSocket.send; InvalidStateError before connect()
     */
    send(content) {
      if (!this.socket) throw new DOMException("connect() comes before send()", "InvalidStateError");
      this.socket.send(this.encode(content));
    }

    /**
     * A stream, to send on.
     *
     * @param {string} name
     * @returns {{ send: (payload: any) => void }}
     */
    stream(name) {
      return { send: (payload) => this.send({ stream: name, payload }) };
    }

    /** Closes the socket, for good. */
    close(code, reason) {
      this.socket?.close(code, reason);
    }

    /** What is sent for `content`; to be overridden for another codec than JSON. */
    encode(content) {
      return JSON.stringify(content);
    }

    /** What a text frame says; to be overridden with encode(). */
    decode(text) {
      return JSON.parse(text);
    }

    _received(data) {
      if (typeof data !== "string") {
        this.dispatchEvent(new CustomEvent("binary", { detail: data }));
        return;
      }
      let content;
      try {
        content = this.decode(data);
      } catch (cause) {
        const error = new Error(`a frame could not be decoded: ${data.slice(0, 100)}`, { cause });
        this.dispatchEvent(new CustomEvent("error", { detail: error }));
        return;
      }
      this.dispatchEvent(new CustomEvent("message", { detail: content }));
      if (!this._listening) return;
      if (content !== null && typeof content === "object" && content.stream !== undefined) {
        this.streams[content.stream]?.(content.payload, content.stream);
      } else {
        this.default_cb?.(content, null);
      }
    }
  }

  globalThis.channelsq = Object.assign(globalThis.channelsq ?? {}, { WebSocketBridge, ReconnectingSocket });
  globalThis.channels = Object.assign(globalThis.channels ?? {}, { WebSocketBridge });
})();
