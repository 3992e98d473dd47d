// The pages outside the rooms: a small socket brings unread numbers and mentions.

import { WebSocketBridge } from "../channelsq/js/websocketbridge.module.js";
import { colour, markMine } from "./chat/names.js";
import { handleNotice } from "./chat/notices.js";
import { showTime } from "./chat/times.js";

const PING_EVERY = 30_000; // ms

const bridge = new WebSocketBridge({ minDelay: 1000, silenceTimeout: 75_000, stopCodes: [] });
bridge.listen(handleNotice);
setInterval(() => bridge.state === "open" && bridge.send({ type: "ping" }), PING_EVERY);

document.querySelectorAll("[data-user]").forEach(colour);
document.querySelectorAll(".message time").forEach(showTime);
markMine(document.body);
bridge.connect(`${document.body.dataset.root}notices/`);
