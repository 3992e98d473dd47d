/* The module: import { WebSocketBridge } from ".../channelsq/js/websocketbridge.mjs". */
import "./websocketbridge.js";

export const { WebSocketBridge, ReconnectingSocket } = globalThis.channelsq;
