/* The live admin: the socket of a page, and its messages. */
"use strict";

(() => {
  const element = document.getElementById("channelsq-admin");
  if (!element) return;
  const data = JSON.parse(element.textContent);
  const bar = new channelsqAdmin.Bar(data.texts);
  const page = data.kind === "list" ? new channelsqAdmin.ListPage(data, bar) : new channelsqAdmin.ObjectPage(data, bar);

  /** ms: between two signs of life, of silence before the connection counts as lost, and before that is shown. */
  const LOOK_EVERY = 60_000, SILENCE = 150_000, TELL_AFTER = 5000;
  const NOT_ALLOWED = 4403;

  const bridge = new channels.WebSocketBridge({
    minDelay: 1000,
    silenceTimeout: SILENCE,
    stopCodes: [NOT_ALLOWED],
  });
  /** The timer of the time without a connection; null while there is one. */
  let lostTimer = null;

  const forgetLoss = () => {
    clearTimeout(lostTimer);
    lostTimer = null;
    bar.showLost(false);
  };

  bridge.addEventListener("open", () => bridge.send({ type: "hello", page: data.page }));
  bridge.addEventListener("reconnect", () => page.returned());
  bridge.addEventListener("statechange", ({ detail: state }) => {
    if (state === "closed") {
      forgetLoss();
      bar.showPeople([], 0);
    } else if (state !== "open") {
      lostTimer ??= setTimeout(() => bar.showLost(true), TELL_AFTER); // the first of many attempts to connect began it
    }
  });
  bridge.listen((frame) => {
    if (frame.type === "welcome") {
      forgetLoss();
      document.documentElement.dataset.channelsqAdmin = "live";
    } else if (frame.type === "people") {
      page.people(frame);
    } else if (frame.type === "saved") {
      page.saved(frame);
    } else if (frame.type === "deleted") {
      page.deleted(frame);
    } else if (frame.type === "rows") {
      page.rows(frame);
    }
  });
  setInterval(() => bridge.state === "open" && bridge.send({ type: "look" }), LOOK_EVERY);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && bridge.state === "open") bridge.send({ type: "look" });
  });
  bridge.connect(data.url);
})();
