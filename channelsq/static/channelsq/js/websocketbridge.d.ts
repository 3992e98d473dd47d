/* Types of websocketbridge.module.js.  A test compares them with those that TypeScript reads in websocketbridge.js. */

export interface SocketOptions {
  /** ms: the longest first wait before connecting again */
  minDelay: number;
  /** ms: the longest wait */
  maxDelay: number;
  /** growth of the longest wait with each attempt */
  factor: number;
  /** attempts in a row after which it gives up */
  maxRetries: number;
  /** ms that a connection must last for the waits to start again at `minDelay` */
  minUptime: number;
  /** ms that an attempt may take; 0: the browser's limit */
  connectionTimeout: number;
  /** ms without a frame after which a connection counts as lost; 0: never */
  silenceTimeout: number;
  /** messages that are kept while there is no connection */
  maxQueue: number;
  /** close codes after which it does not connect again */
  stopCodes: readonly number[];
  /** true if each state is written to the console */
  debug: boolean;
  /** source of a token for each attempt; null: none */
  token: TokenSource;
}

/** The URL of a view that answers with `{"token": …}`, or a function that returns a token. */
export type TokenSource = string | URL | (() => string | null | undefined | Promise<string | null | undefined>) | null;

/** The names of these options in Channels 1. */
export interface OldOptions {
  /** minDelay */
  minReconnectionDelay?: number;
  /** maxDelay */
  maxReconnectionDelay?: number;
  /** factor */
  reconnectionDelayGrowFactor?: number;
}

export type Options = Partial<SocketOptions> & OldOptions;
export type Address = string | URL | null | undefined;
export type Data = string | ArrayBuffer | ArrayBufferView<ArrayBuffer> | Blob;
export type SocketState = "connecting" | "open" | "waiting" | "closed";

export interface SocketEventMap {
  open: Event;
  message: MessageEvent;
  close: CloseEvent;
  error: Event;
  statechange: CustomEvent<SocketState>;
  connecting: CustomEvent<{ url: string; retries: number }>;
  waiting: CustomEvent<{ delay: number; retries: number }>;
  reconnect: Event;
  unsent: CustomEvent<Data[]>;
}

/** A WebSocket that connects again when its connection ends. */
export class ReconnectingSocket extends EventTarget {
  static readonly DEFAULTS: Readonly<SocketOptions>;
  static readonly CONNECTING: number;
  static readonly OPEN: number;
  static readonly CLOSING: number;
  static readonly CLOSED: number;

  constructor(url?: Address | (() => Address), protocols?: string | string[], options?: Options);

  readonly CONNECTING: number;
  readonly OPEN: number;
  readonly CLOSING: number;
  readonly CLOSED: number;
  readonly options: Readonly<SocketOptions>;
  readonly state: SocketState;
  /** The number of attempts since a connection that lasted. */
  readonly retries: number;
  /** The URL of the last attempt. */
  readonly url: string;
  /** The number of messages that wait for a connection. */
  readonly queued: number;
  readonly readyState: number;
  readonly protocol: string;
  readonly extensions: string;
  readonly bufferedAmount: number;
  binaryType: BinaryType;

  onopen: ((event: Event) => void) | null;
  onmessage: ((event: MessageEvent) => void) | null;
  onclose: ((event: CloseEvent) => void) | null;
  onerror: ((event: Event) => void) | null;
  onstatechange: ((event: CustomEvent<SocketState>) => void) | null;

  /** Sends a message, as soon as there is a connection. */
  send(data: Data): void;
  /** Closes the connection for good. */
  close(code?: number, reason?: string): void;
  /** Drops the present connection, if any, and opens a new one at once; also after it was closed. */
  reconnect(): void;

  addEventListener<Type extends keyof SocketEventMap>(
    type: Type,
    listener: (event: SocketEventMap[Type]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

export type TaskState = "waiting" | "started" | "retry" | "success" | "failure" | "revoked" | "unknown" | "refused";

export interface TextChange {
  /** the name of the stream */
  stream: string;
  /** the new text */
  piece: string;
  /** all text of the stream */
  text: string;
  /** true if `piece` replaces the text before: the task runs again, or text was lost */
  restarted: boolean;
  /** true if the stream is complete */
  ended: boolean;
}

/** The error of a task's promise. */
export interface TaskError extends Error {
  name: "TaskError";
  state: "failure" | "revoked" | "unknown" | "refused";
}

export interface TaskEventMap {
  progress: CustomEvent<LiveTask>;
  state: CustomEvent<LiveTask>;
  text: CustomEvent<TextChange>;
}

/** A live task of the server, as far as this page has heard of it, and a promise of its result. */
export interface LiveTask<Result = any> extends EventTarget {
  readonly id: string;
  /** The permission to watch the task; null: none has come so far. */
  readonly ticket: string | null;
  /** Null: nothing was heard so far. */
  readonly state: TaskState | null;
  readonly done: number;
  readonly total: number | null;
  /** The text of the last report. */
  readonly text: string;
  readonly parts: { readonly total: number; readonly done: number; readonly failed: number } | null;
  readonly result: Result | null;
  /** True if the result is too long for a message, or not for JSON. */
  readonly omitted: boolean;
  readonly error: string | null;
  /** The text of each stream. */
  readonly texts: Readonly<Record<string, string>>;

  onprogress: ((task: LiveTask<Result>) => void) | null;
  onstate: ((task: LiveTask<Result>) => void) | null;
  ontext: ((change: TextChange) => void) | null;

  then<Fulfilled = Result, Rejected = never>(
    fulfilled?: ((result: Result) => Fulfilled | PromiseLike<Fulfilled>) | null,
    rejected?: ((error: TaskError) => Rejected | PromiseLike<Rejected>) | null,
  ): Promise<Fulfilled | Rejected>;
  catch<Rejected = never>(
    rejected?: ((error: TaskError) => Rejected | PromiseLike<Rejected>) | null,
  ): Promise<Result | Rejected>;
  finally(settled?: (() => void) | null): Promise<Result>;

  /** Cancels the task; false: it may not be cancelled, or has ended otherwise. */
  cancel(): Promise<boolean>;
  /** Ignores the task until bridge.task() is called with its ticket again. */
  unwatch(): void;

  addEventListener<Type extends keyof TaskEventMap>(
    type: Type,
    listener: (event: TaskEventMap[Type]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

export interface BridgeEventMap extends Omit<SocketEventMap, "message" | "error"> {
  message: CustomEvent<any>;
  error: CustomEvent<Error>;
  binary: CustomEvent<Blob | ArrayBuffer>;
  unclaimed: CustomEvent<{ stream: string; payload: any }>;
  task: CustomEvent<LiveTask>;
}

/** Exchanges JSON with consumers on a socket that reconnects, with streams. */
export class WebSocketBridge extends EventTarget {
  constructor(options?: Options);

  readonly options: Options;
  readonly socket: ReconnectingSocket | null;
  readonly streams: Record<string, (payload: any, stream: string) => void>;
  readonly default_cb: ((content: any, stream: null) => void) | null;
  readonly state: SocketState | "idle";

  /** Connects to a server, and again after each end of the connection. */
  connect(url?: Address | (() => Address), protocols?: string | string[], options?: Options): void;
  /** Starts to deliver messages; the callback gets those that belong to no stream. */
  listen(callback?: (content: any, stream: null) => void): void;
  /** Delivers the messages of a stream to its own callback. */
  demultiplex(stream: string, callback: (payload: any, stream: string) => void): void;
  /** Sends JSON; without a connection it is kept until the next one. */
  send(content: any): void;
  /** Returns a stream for sending. */
  stream(name: string): { send(payload: any): void };
  /** Returns a live task, and watches it. */
  task<Result = any>(ticketOrId: string): LiveTask<Result>;
  /** Closes the socket for good. */
  close(code?: number, reason?: string): void;
  /** Drops the present connection, if any, and opens a new one at once; also after it was closed. */
  reconnect(): void;
  /** Encodes content for a frame; override it for another codec than JSON. */
  encode(content: any): Data;
  /** Decodes a text frame; override it together with encode(). */
  decode(text: string): any;

  addEventListener<Type extends keyof BridgeEventMap>(
    type: Type,
    listener: (event: BridgeEventMap[Type]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}
