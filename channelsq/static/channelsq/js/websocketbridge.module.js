/* The module of websocketbridge.js. Not named .mjs: web servers that do not know the ending serve it as no script. */
import "./websocketbridge.js";

export const { WebSocketBridge, ReconnectingSocket } = globalThis.channelsq;
