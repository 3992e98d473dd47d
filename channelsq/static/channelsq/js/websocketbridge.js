/* channelsq's browser library: a WebSocket that comes back, JSON both ways, and several streams on one socket.
 *
 *     <script src="{% static 'channelsq/js/websocketbridge.js' %}"></script>
 *     const bridge = new channels.WebSocketBridge();
 *
 * websocketbridge.module.js, beside this file, is the same as an ES module.
 */
var channelsq = (() => {
  "use strict";

  /**
   * @typedef {object} SocketOptions
   * @property {number} minDelay ms: the longest first wait before connecting again
   * @property {number} maxDelay ms: the longest wait
   * @property {number} factor growth of the longest wait with each attempt
   * @property {number} maxRetries attempts in a row after which it gives up
   * @property {number} minUptime ms that a connection must last for the waits to start again at `minDelay`
   * @property {number} connectionTimeout ms that an attempt may take; 0: the browser's limit
   * @property {number} silenceTimeout ms without a frame after which a connection counts as lost; 0: never
   * @property {number} maxQueue messages that are kept while there is no connection
   * @property {readonly number[]} stopCodes close codes after which it does not connect again
   * @property {boolean} debug whether each state is written to the console
   * @property {TokenSource} token source of a token for each attempt; null: none
   */

  /**
   * The URL of a view that answers with `{"token": …}`, or a function that returns a token; an empty token means none.
   *
   * @typedef {string | URL | (() => string | null | undefined | Promise<string | null | undefined>) | null} TokenSource
   */

  /**
   * The names of these options in Channels 1.
   *
   * @typedef {object} OldOptions
   * @property {number} [minReconnectionDelay] minDelay
   * @property {number} [maxReconnectionDelay] maxDelay
   * @property {number} [reconnectionDelayGrowFactor] factor
   */

  /** @typedef {Partial<SocketOptions> & OldOptions} Options */

  /** @typedef {string | URL | null | undefined} Address */
  /** @typedef {string | ArrayBuffer | ArrayBufferView<ArrayBuffer> | Blob} Data */
  /** @typedef {"connecting" | "open" | "waiting" | "closed"} SocketState */
  /** @typedef {((event: any) => void) | null} Handler */

  /** @type {Readonly<SocketOptions>} */
  const DEFAULTS = Object.freeze({
    minDelay: 500,
    maxDelay: 30000,
    factor: 2,
    maxRetries: Infinity,
    minUptime: 5000,
    connectionTimeout: 10000,
    silenceTimeout: 0,
    maxQueue: 100,
    stopCodes: Object.freeze([1000, 1008]),
    debug: false,
    token: null,
  });

  /**
   * The least and greatest value of each option.  A browser's timer with more than 31 bits fires at once.
   *
   * @type {Readonly<Record<string, readonly [number, number]>>}
   */
  const LIMITS = Object.freeze({
    minDelay: [0, 2 ** 31 - 1],
    maxDelay: [0, 2 ** 31 - 1],
    factor: [1, Infinity],
    maxRetries: [0, Infinity],
    minUptime: [0, Infinity],
    connectionTimeout: [0, 2 ** 31 - 1],
    silenceTimeout: [0, 2 ** 31 - 1],
    maxQueue: [0, Infinity],
  });

  /** @type {Readonly<Record<string, keyof SocketOptions>>} */
  const OLD_NAMES = Object.freeze({
    minReconnectionDelay: "minDelay",
    maxReconnectionDelay: "maxDelay",
    reconnectionDelayGrowFactor: "factor",
  });

  /**
   * @param {Record<string, any>} given
   * @returns {Readonly<SocketOptions>}
   */
  function checkedOptions(given) {
    const named = Object.entries(given).map(([name, value]) => [
      Object.hasOwn(OLD_NAMES, name) ? OLD_NAMES[name] : name,
      value,
    ]);
    for (const [name, value] of named) {
      if (!Object.hasOwn(DEFAULTS, name)) {
        throw new TypeError(`there is no option ${name}; there are ${Object.keys(DEFAULTS).join(", ")}`);
      }
      if (Object.hasOwn(LIMITS, name)) {
        const [least, most] = LIMITS[name];
        if (typeof value !== "number" || !(value >= least && value <= most)) {
          throw new TypeError(`${name} must be a number from ${least} to ${most}, not ${value}`);
        }
      }
      if (name === "stopCodes" && !(Array.isArray(value) && value.every(Number.isInteger))) {
        throw new TypeError(`stopCodes must be an array of close codes, not ${value}`);
      }
      if (name === "token" && !(value === null || ["string", "function"].includes(typeof value) || value instanceof URL)) {
        throw new TypeError(`token must be a URL, or a function that gives a token, not ${value}`);
      }
    }
    return Object.freeze({ ...DEFAULTS, ...Object.fromEntries(named) });
  }

  /**
   * Returns the URL of a socket; a relative address belongs to this page's site.
   *
   * @param {Address} address
   */
  function socketUrl(address) {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    if (address === undefined || address === null) return `${scheme}//${location.host}`;
    const url = new URL(address, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.hash = "";
    return url.href;
  }

  /**
   * @param {NonNullable<TokenSource>} source
   * @returns {Promise<string>}
   */
  async function freshToken(source) {
    if (typeof source === "function") return (await source()) ?? "";
    const answer = await fetch(source, { cache: "no-store", headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`${answer.status} from ${source}`);
    return (await answer.json()).token ?? "";
  }

  /**
   * A WebSocket that connects again when its connection ends.
   *
   * Its events are those of a WebSocket, "open" and "close" once for each connection, and these: "statechange", with the
   * new state in `detail`; "connecting", with `{url, retries}`; "waiting", with `{delay, retries}`, `delay` in ms;
   * "reconnect" after each "open" but the first; and "unsent", with the waiting messages when the connection ended for
   * good.
   */
  class ReconnectingSocket extends EventTarget {
    static DEFAULTS = DEFAULTS;
    static CONNECTING = WebSocket.CONNECTING;
    static OPEN = WebSocket.OPEN;
    static CLOSING = WebSocket.CLOSING;
    static CLOSED = WebSocket.CLOSED;

    CONNECTING = WebSocket.CONNECTING;
    OPEN = WebSocket.OPEN;
    CLOSING = WebSocket.CLOSING;
    CLOSED = WebSocket.CLOSED;

    /** @type {Handler} */
    onopen = null;
    /** @type {Handler} */
    onmessage = null;
    /** @type {Handler} */
    onclose = null;
    /** @type {Handler} */
    onerror = null;
    /** @type {Handler} */
    onstatechange = null;

    /** @type {() => Address} */
    #address;
    /** @type {string | string[]} */
    #protocols;
    /** @type {SocketState} */
    #state = "closed";
    /** @type {WebSocket | null} */
    #socket = null;
    /**
     * The attempt that waits for its token.
     *
     * @type {object | null}
     */
    #attempt = null;
    /** @type {BinaryType} */
    #binaryType = "blob";
    /** @type {Data[]} */
    #queue = [];
    #url = "";
    #retries = 0;
    #opened = 0;
    #openedAt = 0;
    #heardAt = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    #timer = undefined;
    /** @type {AbortController | null} */
    #wakers = null;

    /**
     * @param {Address | (() => Address)} [url] absolute or relative; or a function that returns one for each attempt
     * @param {string | string[]} [protocols] subprotocols
     * @param {Options} [options]
     * @throws {TypeError} an unknown option, or an invalid value; no URL
     * @throws {DOMException} as `new WebSocket`
     */
    constructor(url, protocols, options) {
      super();
      this.options = checkedOptions(options ?? {});
      this.#address = typeof url === "function" ? url : () => url;
      this.#protocols = protocols ?? [];
      for (const type of /** @type {const} */ (["open", "message", "close", "error", "statechange"])) {
        this.addEventListener(type, (event) => this[`on${type}`]?.(event));
      }
      this.#connect();
    }

    /** "connecting", "open", "waiting" for the next attempt, or "closed" for good. */
    get state() {
      return this.#state;
    }

    /** The number of attempts since a connection that lasted. */
    get retries() {
      return this.#retries;
    }

    /** The URL of the last attempt. */
    get url() {
      return this.#url;
    }

    /** The number of messages that wait for a connection. */
    get queued() {
      return this.#queue.length;
    }

    /** The state as in a WebSocket; while it waits for its next attempt it is CONNECTING. */
    get readyState() {
      if (this.#state === "waiting" || this.#attempt) return WebSocket.CONNECTING;
      return this.#socket?.readyState ?? WebSocket.CLOSED;
    }

    get protocol() {
      return this.#socket?.protocol ?? "";
    }

    get extensions() {
      return this.#socket?.extensions ?? "";
    }

    get bufferedAmount() {
      return this.#socket?.bufferedAmount ?? 0;
    }

    get binaryType() {
      return this.#binaryType;
    }

    set binaryType(type) {
      this.#binaryType = type;
      if (this.#socket) this.#socket.binaryType = type;
    }

    /**
     * Sends a message, as soon as there is a connection.
     *
     * @param {Data} data
     * @throws {DOMException} InvalidStateError: it is closed for good; QuotaExceededError: `maxQueue` messages wait
     */
    send(data) {
      if (this.#state === "closed") {
        throw new DOMException("the socket is closed for good; reconnect() opens it again", "InvalidStateError");
      }
      if (this.#state === "open" && this.#socket?.readyState === WebSocket.OPEN) {
        this.#socket.send(data);
      } else if (this.#queue.length < this.options.maxQueue) {
        // A copy, as in a WebSocket: the caller may reuse its buffer.
        this.#queue.push(typeof data === "string" ? data : new Blob([data]));
      } else {
        throw new DOMException(
          `${this.#queue.length} messages wait for a connection, which is maxQueue; this one was not sent`,
          "QuotaExceededError",
        );
      }
    }

    /**
     * Closes the connection for good, with its timers and listeners.
     *
     * @param {number} [code] 1000, or 3000 to 4999
     * @param {string} [reason] at most 123 bytes
     * @throws {DOMException} InvalidAccessError, SyntaxError: another code, a longer reason; the connection stays
     */
    close(code = 1000, reason = "") {
      if (code !== 1000 && !(code >= 3000 && code <= 4999)) {
        throw new DOMException(`a page may close with 1000 and 3000 to 4999, not ${code}`, "InvalidAccessError");
      }
      this.#socket?.close(code, reason);
      if (this.#state !== "closed") this.#end();
    }

    /** Drops the present connection, if any, and opens a new one at once; also after it was closed. */
    reconnect() {
      if (this.#state === "closed") this.#retries = 0;
      const lost = this.#detach();
      this.#connect();
      if (lost) this.#emitClose({ code: 1006, reason: "reconnect()", wasClean: false });
    }

    #connect() {
      clearTimeout(this.#timer);
      const { connectionTimeout, token } = this.options;
      try {
        this.#url = socketUrl(this.#address());
        if (token === null) this.#dial(this.#protocols);
        else this.#dialWith(token);
      } catch (error) {
        // The next attempt would fail in the same way.
        this.#end();
        throw error;
      }
      this.#watch();
      if (connectionTimeout) {
        const reason = `no connection in ${connectionTimeout} ms`;
        this.#timer = setTimeout(() => this.#lose({ code: 1006, reason, wasClean: false }), connectionTimeout);
      }
      this.#enter("connecting", { url: this.#url, retries: this.#retries });
    }

    /** @param {string | string[]} protocols */
    #dial(protocols) {
      this.#socket = new WebSocket(this.#url, protocols);
      this.#listen(this.#socket);
    }

    /**
     * Opens the connection when the token is there.
     *
     * @param {NonNullable<TokenSource>} source
     */
    async #dialWith(source) {
      const attempt = (this.#attempt = {});
      let token;
      try {
        token = await freshToken(source);
      } catch (error) {
        if (attempt === this.#attempt) this.#lose({ code: 1006, reason: "no token", wasClean: false });
        if (this.options.debug) console.debug("socket", this.#url, error);
        return;
      }
      if (attempt !== this.#attempt) return;
      this.#attempt = null;
      const protocols = [this.#protocols].flat();
      // A browser that offers subprotocols hangs up unless the server chooses one, so it offers one without a meaning.
      if (token) protocols.push("channelsq", `channelsq.token.${token}`);
      try {
        this.#dial(protocols);
      } catch (error) {
        this.#end();
        reportError(error); // nobody called this
      }
    }

    /** @param {WebSocket} socket */
    #listen(socket) {
      /** @param {string} type @param {(event: any) => void} handle */
      const on = (type, handle) => {
        socket.addEventListener(type, (event) => {
          if (socket === this.#socket) handle(event);
        });
      };
      socket.binaryType = this.#binaryType;
      on("open", () => this.#open(socket));
      on("message", ({ data, origin }) => {
        this.#heardAt = performance.now();
        this.dispatchEvent(new MessageEvent("message", { data, origin }));
      });
      on("error", () => this.dispatchEvent(new Event("error")));
      on("close", (event) => this.#lose(event));
    }

    /** @param {WebSocket} socket */
    #open(socket) {
      clearTimeout(this.#timer);
      this.#openedAt = this.#heardAt = performance.now();
      this.#opened += 1;
      for (const data of this.#queue.splice(0)) socket.send(data);
      this.#watchSilence();
      this.#enter("open");
      if (this.#socket !== socket) return; // a handler has given it up
      this.dispatchEvent(new Event("open"));
      if (this.#opened > 1) this.dispatchEvent(new Event("reconnect"));
    }

    #watchSilence() {
      const { silenceTimeout } = this.options;
      if (!silenceTimeout) return;
      const left = this.#heardAt + silenceTimeout - performance.now();
      if (left > 0) this.#timer = setTimeout(() => this.#watchSilence(), left);
      else this.#lose({ code: 1006, reason: `nothing came for ${silenceTimeout} ms`, wasClean: false });
    }

    /**
     * Handles the end of the connection, or its loss.
     *
     * @param {{ code: number, reason: string, wasClean: boolean }} how
     */
    #lose(how) {
      this.#detach();
      if (this.#state !== "closed") {
        const gone = this.options.stopCodes.includes(how.code) || this.#retries >= this.options.maxRetries;
        if (gone) this.#end();
        else this.#wait();
      }
      this.#emitClose(how);
    }

    /** Removes all listeners of the present connection; returns whether there was one. */
    #detach() {
      clearTimeout(this.#timer);
      const lasted = this.#state === "open" && performance.now() - this.#openedAt >= this.options.minUptime;
      if (lasted) this.#retries = 0;
      const [socket, attempt] = [this.#socket, this.#attempt];
      this.#socket = this.#attempt = null;
      socket?.close();
      return socket !== null || attempt !== null;
    }

    #wait() {
      const { minDelay, maxDelay, factor } = this.options;
      // A random part of the longest wait, so that the clients of a server that was away do not come back all at once.
      const delay = Math.random() * Math.min(maxDelay, minDelay * factor ** this.#retries);
      this.#retries += 1;
      this.#timer = setTimeout(() => this.#connect(), delay);
      this.#enter("waiting", { delay, retries: this.#retries });
    }

    #end() {
      clearTimeout(this.#timer);
      this.#attempt = null;
      this.#wakers?.abort();
      this.#wakers = null;
      const unsent = this.#queue.splice(0);
      this.#enter("closed");
      if (unsent.length) this.dispatchEvent(new CustomEvent("unsent", { detail: unsent }));
    }

    /** Ends the wait when the network is back, or the user looks at the page again. */
    #watch() {
      if (this.#wakers) return;
      this.#wakers = new AbortController();
      const { signal } = this.#wakers;
      const wake = () => {
        if (this.#state === "waiting") this.#connect();
      };
      addEventListener("online", wake, { signal });
      document.addEventListener("visibilitychange", () => document.hidden || wake(), { signal });
      // A page that comes back from the browser's cache had its connection closed, perhaps without an event so far.
      addEventListener("pageshow", ({ persisted }) => {
        if (persisted && this.#socket?.readyState !== WebSocket.OPEN) this.reconnect();
      }, { signal });
    }

    /**
     * @param {SocketState} state
     * @param {object} [detail] of the event with the name of the state
     */
    #enter(state, detail) {
      this.#state = state;
      if (this.options.debug) console.debug("socket", this.#url, state, detail ?? "");
      this.dispatchEvent(new CustomEvent("statechange", { detail: state }));
      // Unless a handler has changed the state again.
      if (detail && this.#state === state) this.dispatchEvent(new CustomEvent(state, { detail }));
    }

    /** @param {{ code: number, reason: string, wasClean: boolean }} how */
    #emitClose({ code, reason, wasClean }) {
      this.dispatchEvent(new CloseEvent("close", { code, reason, wasClean }));
    }
  }

  /**
   * Exchanges JSON with consumers on a socket that reconnects, with streams.
   *
   * It passes its socket's events on, and replaces these: "message" has the decoded message in `detail`; "binary" has
   * the data of a binary frame; "error" has an Error for a text frame that could not be decoded (it is also written to
   * the console, unless the event's default is prevented); "unclaimed" has `{stream, payload}` of a stream without a
   * callback.
   *
   * @example
   * const bridge = new channels.WebSocketBridge();
   * bridge.connect("/chat/");
   * bridge.listen((content, stream) => console.log(content));
   * bridge.send({ text: "hello" });
   */
  class WebSocketBridge extends EventTarget {
    /** @type {ReconnectingSocket | null} */
    socket = null;
    /** @type {Record<string, (payload: any, stream: string) => void>} */
    streams = Object.create(null);
    /** @type {((content: any, stream: null) => void) | null} */
    default_cb = null;
    #listening = false;

    /** @param {Options} [options] for every socket of the bridge */
    constructor(options) {
      super();
      this.options = { ...options };
    }

    /**
     * Connects to a server, and again after each end of the connection.  An earlier socket of this bridge is closed.
     *
     * @param {Address | (() => Address)} [url] absolute or relative, else the page's site; or a function that returns
     *   one for each attempt
     * @param {string | string[]} [protocols] subprotocols
     * @param {Options} [options] override those of the bridge
     * @throws {TypeError | DOMException} as `new ReconnectingSocket`
     */
    connect(url, protocols, options) {
      this.socket?.close();
      const socket = new ReconnectingSocket(url, protocols, { ...this.options, ...options });
      this.socket = socket;
      /** @param {string} type @param {(event: any) => void} handle */
      const on = (type, handle) => {
        socket.addEventListener(type, (event) => {
          if (this.socket === socket) handle(event);
        });
      };
      for (const type of ["connecting", "open", "reconnect", "close", "waiting", "statechange", "unsent"]) {
        on(type, (event) => this.dispatchEvent(new event.constructor(type, event)));
      }
      on("message", ({ data }) => this.#receive(data));
      // The socket began before anyone could add a listener.
      const { state, url: where, retries } = socket;
      this.dispatchEvent(new CustomEvent("statechange", { detail: state }));
      this.dispatchEvent(new CustomEvent("connecting", { detail: { url: where, retries } }));
    }

    /** "idle" before connect(); then "connecting", "open", "waiting" for the next attempt, or "closed" for good. */
    get state() {
      return this.socket?.state ?? "idle";
    }

    /**
     * Starts to deliver messages.
     *
     * @param {(content: any, stream: null) => void} [callback] gets the messages that belong to no stream
     */
    listen(callback) {
      this.default_cb = callback ?? null;
      this.#listening = true;
    }

    /**
     * Delivers the messages of a stream to its own callback.
     *
     * @param {string} stream
     * @param {(payload: any, stream: string) => void} callback
     */
    demultiplex(stream, callback) {
      this.streams[stream] = callback;
    }

    /**
     * Sends a message; without a connection it is kept until the next one.
     *
     * @param {any} content a value that JSON supports
     * @throws {TypeError} JSON does not support the value
     * @throws {DOMException} as ReconnectingSocket.send; InvalidStateError before connect()
     */
    send(content) {
      const data = this.encode(content);
      if (data === undefined) throw new TypeError(`${String(content)} is nothing that can be sent`);
      this.#connected("send").send(data);
    }

    /**
     * Returns a stream for sending.
     *
     * @param {string} name
     * @returns {{ send: (payload: any) => void }}
     */
    stream(name) {
      return { send: (payload) => this.send({ stream: name, payload }) };
    }

    /**
     * Closes the socket for good.
     *
     * @param {number} [code] 1000, or 3000 to 4999
     * @param {string} [reason]
     */
    close(code, reason) {
      this.socket?.close(code, reason);
    }

    /** Drops the present connection, if any, and opens a new one at once; also after it was closed. */
    reconnect() {
      this.#connected("reconnect").reconnect();
    }

    /**
     * Encodes `content` for a frame; override it for another codec than JSON.
     *
     * @param {any} content
     * @returns {Data}
     */
    encode(content) {
      return JSON.stringify(content);
    }

    /**
     * Decodes a text frame; override it together with encode().
     *
     * @param {string} text
     * @returns {any}
     */
    decode(text) {
      return JSON.parse(text);
    }

    /** @param {string} what */
    #connected(what) {
      if (!this.socket) throw new DOMException(`connect() comes before ${what}()`, "InvalidStateError");
      return this.socket;
    }

    /** @param {string | Blob | ArrayBuffer} data */
    #receive(data) {
      if (typeof data !== "string") {
        this.dispatchEvent(new CustomEvent("binary", { detail: data }));
        return;
      }
      let content;
      try {
        content = this.decode(data);
      } catch (cause) {
        const error = new Error(`a frame could not be decoded: ${data.slice(0, 100)}`, { cause });
        const told = new CustomEvent("error", { detail: error, cancelable: true });
        if (this.dispatchEvent(told)) console.warn(error);
        return;
      }
      this.dispatchEvent(new CustomEvent("message", { detail: content }));
      if (this.#listening) this.#handOn(content);
    }

    /** @param {any} content */
    #handOn(content) {
      if (content === null || typeof content !== "object" || content.stream === undefined) {
        this.default_cb?.(content, null);
        return;
      }
      const { stream, payload } = content;
      const callback = this.streams[stream];
      if (callback) callback(payload, stream);
      else this.dispatchEvent(new CustomEvent("unclaimed", { detail: { stream, payload } }));
    }
  }

  // A page may load this as a script and again through a module: there is still only one class of each name.
  const loaded = /** @type {{ channelsq?: object, channels?: object }} */ (globalThis);
  const classes = Object.assign({ WebSocketBridge, ReconnectingSocket }, loaded.channelsq);
  // In a module, var creates no global.
  loaded.channelsq = classes;
  loaded.channels = { ...loaded.channels, WebSocketBridge: classes.WebSocketBridge };
  return classes;
})();

/**
 * The name of Channels 1.
 *
 * @type {{ WebSocketBridge: typeof channelsq.WebSocketBridge }}
 */
var channels = globalThis.channels;
