/* The module of websocketbridge.js. Not named .mjs: web servers that do not know this ending would not serve a script. */
import "./websocketbridge.js";

export const { WebSocketBridge, ReconnectingSocket } = globalThis.channelsq;
