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
    // Those of WebSocket, which is not there when a server renders a page.
    static CONNECTING = 0;
    static OPEN = 1;
    static CLOSING = 2;
    static CLOSED = 3;

    CONNECTING = 0;
    OPEN = 1;
    CLOSING = 2;
    CLOSED = 3;

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

  /** @typedef {"waiting" | "started" | "retry" | "success" | "failure" | "revoked" | "unknown" | "refused"} TaskState */

  /**
   * @typedef {object} TextChange
   * @property {string} stream the name of the stream
   * @property {string} piece the new text
   * @property {string} text all text of the stream
   * @property {boolean} restarted whether `piece` replaces the text before: the task runs again, or text was lost
   * @property {boolean} ended whether the stream is complete
   */

  /** @typedef {["progress" | "state", LiveTask] | ["text", TextChange]} TaskNews */
  /** @typedef {"watch" | "unwatch" | "cancel"} Request */

  const TASK_STREAM = "channelsq.task";
  const TASK_FRAME = `{"stream":"${TASK_STREAM}",`;

  /** The most tickets in a frame, as the server allows. */
  const MOST_TICKETS = 50;

  /** The most tasks that a bridge keeps, besides running ones that the page has asked for. */
  const MOST_TASKS = 100;

  /** The most pieces of a stream that wait for the text before them. */
  const MOST_AHEAD = 100;

  /** @type {readonly (TaskState | null)[]} */
  const ENDED = Object.freeze(["success", "failure", "revoked"]);
  /** @type {readonly (TaskState | null)[]} */
  const LOST = Object.freeze(["unknown", "refused"]);

  // The methods of a task for its bridge alone.
  const HEAR = Symbol("hear");
  const CLAIM = Symbol("claim");
  const RESUME = Symbol("resume");
  const IS_CLAIMED = Symbol("is claimed");

  /** The text of a stream, joined from its pieces.  Places count UTF-16 units from the stream's beginning. */
  class StreamText {
    text = "";
    ended = false;
    /** The place whose absence was the reason for the last request. */
    asked = -1;
    /** True if the text before `#start` may be had. */
    partial = false;
    #run = "";
    #start = 0;
    #end = -1;
    /** @type {{ at: number, piece: string }[]} */
    #ahead = [];

    get #length() {
      return this.#start + this.text.length;
    }

    /** The place after a gap: of a piece that cannot be joined yet, or of the end; -1: there is no gap. */
    get gap() {
      if (this.#ahead.length) return this.#ahead[0].at;
      return this.#end === -1 || this.ended ? -1 : this.#end;
    }

    /**
     * Takes a piece, or the end.
     *
     * @param {{ run: string, at: number, piece?: string, begin?: boolean, end?: boolean }} payload
     * @returns {{ piece: string, restarted: boolean, changed: boolean }}
     */
    take({ run, at, piece = "", begin, end }) {
      const restarted = run !== this.#run || begin === true;
      if (run !== this.#run) {
        this.#ahead = [];
        this.#end = this.asked = -1;
      } else if (restarted && this.text) {
        this.#ahead.push({ at: this.#start, piece: this.text }); // it may reach further than the new beginning
      }
      if (restarted) {
        [this.#run, this.#start, this.text, this.ended] = [run, at, "", false];
        this.partial = at > 0 && !begin;
      }
      if (end) this.#end = at;
      else this.#ahead.push({ at, piece });
      return this.#join(restarted);
    }

    /** Goes on after the gap, for text that cannot be had any more. */
    skip() {
      if (!this.#ahead.length) this.#end = this.#length;
      else [this.#start, this.text] = [this.#ahead[0].at, ""];
      return this.#join(this.#ahead.length > 0);
    }

    /** @param {boolean} restarted */
    #join(restarted) {
      this.#ahead.sort((one, other) => one.at - other.at);
      let added = "";
      while (this.#ahead.length && this.#ahead[0].at <= this.#length) {
        const { at, piece } = /** @type {{ at: number, piece: string }} */ (this.#ahead.shift());
        const more = piece.slice(this.#length - at);
        added += more;
        this.text += more;
      }
      this.#ahead.splice(MOST_AHEAD);
      const ends = !this.ended && this.#end === this.#length;
      if (ends) this.ended = true;
      return { piece: added, restarted, changed: restarted || added !== "" || ends };
    }
  }

  /**
   * A live task of the server, as far as this page has heard of it; bridge.task() returns one.
   *
   * It is a promise of the task's result, rejected with an Error that has `state` when the task fails, is revoked, or
   * cannot be watched.  Its events are "progress", after each report, and "state", when `state` changes, both with the
   * task in `detail`; and "text", with a TextChange in `detail`.
   */
  class LiveTask extends EventTarget {
    /**
     * The permission to watch the task; null: none has come so far.
     *
     * @type {string | null}
     */
    ticket = null;
    /**
     * Null: nothing was heard so far.
     *
     * @type {TaskState | null}
     */
    state = null;
    done = 0;
    /** @type {number | null} */
    total = null;
    text = "";
    /** @type {{ total: number, done: number, failed: number } | null} */
    parts = null;
    /** @type {any} */
    result = null;
    /** True if the result is too long for a message, or not for JSON. */
    omitted = false;
    /** @type {string | null} */
    error = null;
    /**
     * The text of each stream.
     *
     * @type {Record<string, string>}
     */
    texts = Object.create(null);

    /** @type {((task: any) => void) | null} */
    onprogress = null;
    /** @type {((task: any) => void) | null} */
    onstate = null;
    /** @type {((change: TextChange) => void) | null} */
    ontext = null;

    /** True if the page has asked for the task. */
    [IS_CLAIMED] = false;

    /** @type {(request: Request, ticket: string) => void} */
    #send;
    /** @type {Record<string, StreamText>} */
    #streams = Object.create(null);
    #number = -1;
    /** True if a message came, or was asked for, on this connection. */
    #isHeard = false;
    /** True if the answer to "watch" has not come yet. */
    #isAsked = false;
    #isLeft = false;
    /** @type {((cancelled: boolean) => void)[]} */
    #cancels = [];
    /** @type {(result: any) => void} */
    #resolve = () => {};
    /** @type {(error: Error) => void} */
    #reject = () => {};
    /** @type {Promise<any>} */
    #promise = new Promise((resolve, reject) => ([this.#resolve, this.#reject] = [resolve, reject]));

    /**
     * @param {string} id
     * @param {(request: Request, ticket: string) => void} send
     */
    constructor(id, send) {
      super();
      this.id = id;
      this.#send = send;
      this.#promise.catch(() => {}); // an error is told to those who ask for the promise
      for (const type of /** @type {const} */ (["progress", "state", "text"])) {
        this.addEventListener(type, (event) => this[`on${type}`]?.(/** @type {CustomEvent} */ (event).detail));
      }
    }

    /**
     * @template [Result=any], [Caught=never]
     * @param {((result: any) => Result | PromiseLike<Result>) | null} [fulfilled]
     * @param {((error: any) => Caught | PromiseLike<Caught>) | null} [rejected]
     */
    then(fulfilled, rejected) {
      return this.#promise.then(fulfilled, rejected);
    }

    /**
     * @template [Caught=never]
     * @param {((error: any) => Caught | PromiseLike<Caught>) | null} [rejected]
     */
    catch(rejected) {
      return this.#promise.catch(rejected);
    }

    /** @param {(() => void) | null} [settled] */
    finally(settled) {
      return this.#promise.finally(settled);
    }

    /**
     * Cancels the task; false: it may not be cancelled, or has ended otherwise.  Waits for a connection and a ticket.
     *
     * @returns {Promise<boolean>}
     */
    cancel() {
      if (ENDED.includes(this.state)) return Promise.resolve(false);
      return new Promise((resolve) => {
        this.#cancels.push(resolve);
        if (this.#isLeft) this.#watch();
        if (this.ticket !== null && this.#cancels.length === 1) this.#send("cancel", this.ticket);
      });
    }

    /** Ignores the task until bridge.task() is called with its ticket again. */
    unwatch() {
      this.#isLeft = true;
      this.#isAsked = false;
      if (this.ticket !== null && !this.#cancels.length) this.#send("unwatch", this.ticket);
    }

    #watch() {
      this.#isLeft = false;
      if (this.ticket === null || this.#isAsked) return;
      this.#isAsked = this.#isHeard = true;
      this.#send("watch", this.ticket);
    }

    /**
     * Notes that the page has asked for the task, and asks the server if that is needed.
     *
     * @param {string | null} ticket
     */
    [CLAIM](ticket) {
      const isNeeded = this.#isLeft || !this.#isHeard || this.ticket === null;
      const isFirst = this.ticket === null && ticket !== null;
      this.ticket = ticket ?? this.ticket;
      if (isNeeded) this.#watch();
      if (isFirst && this.#cancels.length) this.#send("cancel", ticket);
      if (!this[IS_CLAIMED]) queueMicrotask(() => this.#repeat());
      this[IS_CLAIMED] = true;
    }

    /** Tells handlers that the page adds now what was heard before. */
    #repeat() {
      if (this.state !== null) this.#tell([["progress", this], ["state", this]]);
      for (const [stream, { text, ended }] of Object.entries(this.#streams)) {
        this.#tell([["text", { stream, piece: text, text, restarted: true, ended }]]);
      }
    }

    /** @param {TaskNews[]} news */
    #tell(news) {
      for (const [type, detail] of news) this.dispatchEvent(new CustomEvent(type, { detail }));
    }

    /** Asks again on a new connection. */
    [RESUME]() {
      const isOpen = this.#isAsked || !(ENDED.includes(this.state) || LOST.includes(this.state));
      this.#isAsked = this.#isHeard = false;
      if (isOpen && !this.#isLeft) this.#watch();
      if (this.ticket !== null && this.#cancels.length) this.#send("cancel", this.ticket);
    }

    /**
     * Takes a message.
     *
     * @param {any} payload
     * @returns {() => void} the dispatch of its events
     */
    [HEAR](payload) {
      /** @type {TaskNews[]} */
      const news = [];
      if (!this.#isLeft || this.#cancels.length) {
        this.#isHeard = true;
        if (payload.cancel === "refused") this.#answerCancel(false);
        else if (payload.stream !== undefined) this.#hearText(payload, news);
        else if (payload.state === "refused") this.#hearRefusal(payload, news);
        else if (payload.state !== undefined) this.#hearState(payload, news);
      }
      return () => this.#tell(news);
    }

    /** @param {any} payload @param {TaskNews[]} news */
    #hearState({ ticket, n, state, done = 0, total = null, text = "", parts = null, ...end }, news) {
      if (ticket) {
        const isFirst = this.ticket === null;
        this.ticket = ticket;
        if (isFirst && this.#cancels.length) this.#send("cancel", ticket);
        if (this.#isAsked) this.#hearAnswer(news);
      }
      if (state === "unknown") this.#lose(state, `the server does not know the task ${this.id}`, news);
      if (!(n > this.#number) || ENDED.includes(this.state)) return;
      const { result = null, omitted = false, error = null } = end;
      const isChanged = state !== this.state;
      this.#number = n;
      Object.assign(this, { state, done, total, text, parts, result, omitted, error });
      news.push(["progress", this]);
      if (isChanged) news.push(["state", this]);
      if (!ENDED.includes(state)) return;
      if (state === "success") this.#resolve(result);
      else this.#fail(error ?? `the task ${this.id} was revoked`);
      this.#answerCancel(state === "revoked");
    }

    /** @param {any} payload @param {TaskNews[]} news */
    #hearRefusal({ ticket, error }, news) {
      // The server returns the beginning of a ticket that is too long.
      if (!this.ticket?.startsWith(ticket)) return;
      this.#answerCancel(false);
      if (this.#isAsked) this.#lose("refused", error, news); // else only cancel() was refused
      this.#isAsked = false;
    }

    /** @param {TaskState} state @param {string} error @param {TaskNews[]} news */
    #lose(state, error, news) {
      this.#answerCancel(false);
      if (ENDED.includes(this.state) || this.state === state) return;
      Object.assign(this, { state, error });
      news.push(["state", this]);
      this.#fail(error);
    }

    /** @param {string} message */
    #fail(message) {
      this.#reject(Object.assign(new Error(message), { name: "TaskError", state: this.state }));
    }

    /** @param {boolean} cancelled */
    #answerCancel(cancelled) {
      const cancels = this.#cancels.splice(0);
      for (const resolve of cancels) resolve(cancelled);
      if (this.#isLeft && cancels.length) this.unwatch();
    }

    /** @param {any} payload @param {TaskNews[]} news */
    #hearText(payload, news) {
      const stream = (this.#streams[payload.stream] ??= new StreamText());
      this.#note(payload.stream, stream.take(payload), news);
      if (stream.gap === -1 && !stream.partial) return;
      if (this.ticket === null) {
        if (stream.gap !== -1) this.#note(payload.stream, stream.skip(), news);
      } else if (!this.#isAsked) {
        stream.asked = stream.gap;
        stream.partial = false;
        this.#watch();
      }
    }

    /**
     * Handles the end of an answer to "watch": a gap that it has not filled stays, a later one is asked for again.
     *
     * @param {TaskNews[]} news
     */
    #hearAnswer(news) {
      this.#isAsked = false;
      for (const [name, stream] of Object.entries(this.#streams)) {
        while (stream.gap !== -1 && stream.gap <= stream.asked) this.#note(name, stream.skip(), news);
        stream.asked = stream.gap;
        if (stream.gap !== -1) this.#watch();
      }
    }

    /**
     * @param {string} name
     * @param {{ piece: string, restarted: boolean, changed: boolean }} change
     * @param {TaskNews[]} news
     */
    #note(name, { piece, restarted, changed }, news) {
      const { text, ended } = this.#streams[name];
      this.texts[name] = text;
      if (changed) news.push(["text", { stream: name, piece, text, restarted, ended }]);
    }
  }

  /** The live tasks of a bridge. */
  class LiveTasks {
    /** @type {WebSocketBridge} */
    #bridge;
    /** @type {Map<string, LiveTask>} */
    #tasks = new Map();
    /** @type {[Request, string][]} */
    #requests = [];

    /** @param {WebSocketBridge} bridge */
    constructor(bridge) {
      this.#bridge = bridge;
    }

    /** @param {string} ticketOrId */
    get(ticketOrId) {
      const id = String(ticketOrId).split(":", 1)[0];
      if (typeof ticketOrId !== "string" || !id) {
        throw new TypeError(`task() takes the ticket or the id of a task, not ${ticketOrId}`);
      }
      const ticket = ticketOrId === id ? null : ticketOrId;
      let task = this.#tasks.get(id);
      if (!task || (LOST.includes(task.state) && ticket !== null && ticket !== task.ticket)) task = this.#add(id);
      task[CLAIM](ticket);
      return task;
    }

    /** Asks again on a new connection. */
    resume() {
      this.#requests = [];
      for (const task of this.#tasks.values()) task[RESUME]();
    }

    /** @param {any} payload */
    receive(payload) {
      const id = String(payload?.id ?? payload?.ticket ?? "").split(":", 1)[0];
      const known = this.#tasks.get(id);
      if (!id || (!known && payload.state === "refused")) return;
      const task = known ?? this.#add(id);
      const tell = task[HEAR](payload);
      if (!known) this.#bridge.dispatchEvent(new CustomEvent("task", { detail: task }));
      tell();
    }

    /** @param {string} id */
    #add(id) {
      const task = new LiveTask(id, (request, ticket) => this.#send(request, ticket));
      this.#tasks.delete(id);
      if (this.#tasks.size >= MOST_TASKS) {
        const tasks = [...this.#tasks.values()];
        const gone =
          tasks.find(({ state }) => ENDED.includes(state) || LOST.includes(state)) ??
          tasks.find((each) => !each[IS_CLAIMED]);
        if (gone) this.#tasks.delete(gone.id);
      }
      this.#tasks.set(id, task);
      return task;
    }

    /**
     * Sends a request together with others of this moment; without a connection resume() makes it again.
     *
     * @param {Request} request
     * @param {string} ticket
     */
    #send(request, ticket) {
      if (this.#requests.push([request, ticket]) === 1) queueMicrotask(() => this.#flush());
    }

    #flush() {
      const requests = this.#requests.splice(0);
      const { socket } = this.#bridge;
      if (socket?.readyState !== WebSocket.OPEN) return;
      while (requests.length) {
        const [request] = requests[0];
        const count = requests.findIndex(([other], number) => other !== request || number === MOST_TICKETS);
        const tickets = requests.splice(0, count === -1 ? requests.length : count).map(([, ticket]) => ticket);
        socket.send(JSON.stringify({ stream: TASK_STREAM, payload: { [request]: tickets } }));
      }
    }
  }

  /**
   * Exchanges JSON with consumers on a socket that reconnects, with streams.
   *
   * It passes its socket's events on, and replaces these: "message" has the decoded message in `detail`; "binary" has
   * the data of a binary frame; "error" has an Error for a text frame that could not be decoded (it is also written to
   * the console, unless the event's default is prevented); "unclaimed" has `{stream, payload}` of a stream without a
   * callback; "task" has a LiveTask that the server has told of first.
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
    #tasks = new LiveTasks(this);

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
      on("open", () => this.#tasks.resume());
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
     * Returns a live task, and watches it; the same object for the same id.  Works before connect(), too.
     *
     * @param {string} ticketOrId its ticket; with its id alone the task waits for the first message, which has the ticket
     * @throws {TypeError} another type, or an empty string
     */
    task(ticketOrId) {
      return this.#tasks.get(ticketOrId);
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
        content = data.startsWith(TASK_FRAME) ? JSON.parse(data) : this.decode(data);
      } catch (cause) {
        const error = new Error(`a frame could not be decoded: ${data.slice(0, 100)}`, { cause });
        const told = new CustomEvent("error", { detail: error, cancelable: true });
        if (this.dispatchEvent(told)) console.warn(error);
        return;
      }
      if (content?.stream === TASK_STREAM) {
        this.#tasks.receive(content.payload);
        if (!this.streams[TASK_STREAM]) return;
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
