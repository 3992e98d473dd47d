/* The sockets that the elements of channelsq share: one for each path in a page. */
import "./websocketbridge.js";

const { WebSocketBridge } = globalThis.channelsq;

export const PAGE_STREAM = "channelsq.page";

/** Milliseconds between two questions for a sign of life, and without any frame until the socket counts as lost. */
const ASK_EVERY = 30_000;
const SILENCE = 75_000;

/** @type {Map<string, InstanceType<typeof WebSocketBridge>>} */
const bridges = new Map();

/**
 * Returns the bridge of a path, and connects it.
 *
 * @param {string} path
 */
export function bridgeOf(path) {
  let bridge = bridges.get(path);
  if (!bridge) {
    const made = (bridge = new WebSocketBridge({ silenceTimeout: SILENCE }));
    bridges.set(path, made);
    const ask = () => made.state === "open" && made.stream(PAGE_STREAM).send({ join: [] });
    setInterval(ask, ASK_EVERY);
    document.addEventListener("visibilitychange", () => document.hidden || ask());
    made.demultiplex(PAGE_STREAM, () => {}); // elements listen to the messages
    made.listen();
    made.connect(path);
  }
  return bridge;
}
