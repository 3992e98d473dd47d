/* The dashboard: its socket, and the way of each sample to charts and tables. */
"use strict";

(() => {
  const { Chart, Letters, Table, SHOWN, age, make, milliseconds, number, setText, showNotes, showTiles } = channelsqDashboard;
  const { socket, every } = document.body.dataset;
  const NOT_ALLOWED = 4403;
  /** ms without a sample after which a visible page connects again; a hidden or paused one hears nothing for long. */
  const LOST = Math.max(60_000, 10 * Number(every));
  const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
  const byId = (id) => document.getElementById(id);

  const bridge = new channels.WebSocketBridge({ minDelay: 1000, stopCodes: [NOT_ALLOWED] });
  const letters = new Letters((frame) => bridge.send(frame));
  let points = [];
  let isPaused = false;
  let dead = null;
  /** The time of the last sample, or of the first attempt to connect. */
  let heard = Date.now();
  let reconnected = 0;

  const charts = [
    new Chart("Open sockets", [{ key: "sockets", title: "open" }], number, "No interface server announces its sockets, and no metrics page is named."),
    new Chart("Messages a second", [
      { key: "received", title: "from clients" },
      { key: "sent", title: "to clients" },
    ], number, "This layer does not count messages, and no metrics page is named."),
    new Chart("Answer time of messages", [
      { key: "p50", title: "median" },
      { key: "p95", title: "95 %" },
      { key: "p99", title: "99 %" },
    ], milliseconds, "Needs the metrics of interface servers, and messages of clients."),
    new Chart("Messages in channels", [
      { key: "waiting", title: "waiting" },
      { key: "held", title: "held by workers" },
    ], number, "The layer cannot count waiting messages."),
  ];
  byId("charts").append(...charts.map((chart) => chart.element));

  // -- the state of the connection

  const showState = (state, text) => {
    const element = byId("state");
    element.dataset.state = state;
    setText(byId("state-text"), text);
    document.documentElement.dataset.channelsqDashboard = state;
  };

  /** ms without a sample after which the page says that no worker answers. */
  const SILENT = Math.max(10_000, 5 * Number(every));

  const showSilence = () => {
    if (isPaused || document.hidden || Date.now() - heard < SILENT) return;
    const seconds = Math.round((Date.now() - heard) / 1000);
    if (bridge.state === "open" || bridge.state === "connecting") {
      showState("silent", "No worker answers");
      showNotes(byId("notes"), [{
        level: "bad",
        text: `For ${seconds >= 60 ? `${Math.floor(seconds / 60)} minutes` : "more than ten seconds"} no sample has come: no worker answers, or all are busy. The values below are old.`,
      }]);
    }
    if (bridge.state === "open" && Date.now() - Math.max(heard, reconnected) > LOST) {
      reconnected = Date.now();
      bridge.reconnect();
    }
  };

  const look = () => {
    if (bridge.state === "open" && !isPaused && !document.hidden) bridge.send({ type: "look" });
  };

  bridge.addEventListener("open", () => {
    dead = null;
    bridge.send({ type: "hello" });
  });
  bridge.addEventListener("statechange", ({ detail: state }) => {
    if (state === "closed") showState("refused", "You are not allowed to see this any more. Log in again.");
    else if (state === "waiting") showState("lost", "Connection lost, trying again …");
  });
  setInterval(look, Number(every));
  setInterval(showSilence, 1000);
  document.addEventListener("visibilitychange", () => {
    heard = Date.now();
    look();
  });
  byId("pause").addEventListener("click", ({ currentTarget: button }) => {
    isPaused = !isPaused;
    button.setAttribute("aria-pressed", String(isPaused));
    heard = Date.now();
    if (isPaused) showState("paused", "Paused");
    else look();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    charts.forEach((chart) => chart.draw(points, { anew: true }));
  });

  // -- one sample

  const NEEDS_METRICS = "needs --metrics";

  const tiles = ({ point, totals, hint }) => {
    const measured = hint ? NEEDS_METRICS : "";
    const known = (value, about) => (value === null ? about : "");
    return [
      { title: "Open sockets", text: number(point.sockets), about: known(point.sockets, measured) },
      { title: "From clients", text: number(point.received), about: known(point.received, measured) || "messages a second" },
      { title: "To clients", text: number(point.sent), about: known(point.sent, measured) || "messages a second" },
      { title: "HTTP", text: number(point.requests), about: known(point.requests, measured) || "requests a second" },
      { title: "Answer time", text: milliseconds(point.p95), about: known(point.p95, measured) || "95 % of messages" },
      { title: "Waiting", text: number(point.waiting), about: "messages in channels" },
      { title: "Interface servers", text: number(totals.interfaces), about: totals.versions.length ? `version ${totals.versions.slice(0, 2).join(", ")}` : "" },
      { title: "Workers", text: number(totals.workers), about: totals.streaming === null ? "" : `${number(totals.streaming)} streaming responses` },
      { title: "Groups", text: number(totals.groups), about: totals.largest === null ? "" : `largest: ${number(totals.largest)}` },
      { title: "Refused", text: number(totals.refused), about: known(totals.refused, measured) || "a second", level: totals.refused ? "warn" : "" },
      { title: "Slow clients", text: number(totals.slow), about: known(totals.slow, measured) || "closed since start" },
      { title: "Dead letters", text: number(totals.dead), level: totals.dead ? "bad" : "" },
    ];
  };

  /** The tables of one layer. */
  class Layer {
    constructor() {
      this.element = make("section", { className: "layer" });
      this.heading = make("h2");
      this.url = make("p", { className: "about" });
      this.channels = new Table("Channels", [
        { title: "Channel" },
        { title: "Waiting", right: true },
        { title: "Oldest", right: true },
        { title: "A second", right: true },
        { title: "Held", right: true },
        { title: "Dead", right: true },
        { title: "Capacity", right: true },
        { title: "Consumers" },
      ]);
      this.interfaces = new Table("Interface servers", [
        { title: "Server" },
        { title: "Sockets", right: true },
        { title: "Protocol" },
        { title: "Where" },
        { title: "Version" },
      ]);
      this.workers = new Table("Workers", [
        { title: "Worker" },
        { title: "Channels", right: true },
        { title: "Streaming", right: true },
        { title: "Consumers run in" },
        { title: "Where" },
        { title: "Version" },
      ]);
      this.groups = new Table("Groups", [{ title: "Group" }, { title: "Members", right: true }]);
      this.sockets = new Table("Presence", [{ title: "Path" }, { title: "Socket" }]);
      this.columns = make("div", { className: "columns" });
      this.columns.append(this.interfaces.element, this.workers.element, this.groups.element, this.sockets.element);
      this.element.append(this.heading, this.url, this.channels.element, this.columns);
    }

    show(layer) {
      setText(this.heading, `Layer ${layer.layer}`);
      const hidden = layer.private ? "it lives inside one process, and nothing of it can be seen from another" : "";
      setText(this.url, [layer.backend.split(".").pop(), layer.url, hidden].filter(Boolean).join(" · "));
      this.channels.element.hidden = this.columns.hidden = layer.private;
      this.channels.show(layer.channels.map(Layer.channel), Layer.more(layer.channels_left_out));
      this.interfaces.show(
        (layer.interfaces ?? []).map((each) => [
          each.name,
          each.protocol ? channelsqDashboard.UNKNOWN : number(each.sockets),
          each.protocol ?? "http, websocket",
          Layer.where(each),
          Layer.version(each),
        ]),
        layer.interfaces === null
          ? "This layer does not know its interface servers."
          : layer.interfaces.length ? Layer.more(layer.interfaces_left_out) : "None is announced.",
      );
      this.workers.show(
        layer.workers.map((each) => [
          each.name,
          number(each.channels && each.channels.length),
          each.streaming_limit === null ? number(each.streaming) : `${number(each.streaming)} / ${number(each.streaming_limit)}`,
          each.runs.replace("consumers run in ", "") || "?",
          Layer.where(each),
          Layer.version(each),
        ]),
        layer.inside ? "Consumers run inside this process." : layer.workers.length ? Layer.more(layer.workers_left_out) : "None is announced.",
      );
      const groups = layer.groups;
      this.groups.show(
        (groups?.shown ?? []).map((each) => [each.group, number(each.members)]),
        !groups ? "Unknown." : groups.total ? Layer.rest(groups, "groups") : "No group has members.",
      );
      const sockets = layer.sockets;
      this.sockets.show(
        (sockets?.shown ?? []).map((each) => [each.path ?? "?", { text: each.channel, level: "mono" }]),
        !sockets ? "This layer does not record open sockets." : sockets.total ? Layer.rest(sockets, "sockets") : "No socket is open.",
      );
    }

    static channel(row) {
      const part = row.capacity ? (row.waiting ?? 0) / row.capacity : 0;
      const level = part >= 1 ? "bad" : part >= 0.8 ? "warn" : "";
      const consumers = row.consumers === null ? "?" : row.consumers.join(", ") || "none";
      return [
        row.channel,
        { text: number(row.waiting), level, part: part || null },
        age(row.oldest),
        number(row.rate),
        number(row.held),
        { text: number(row.dead), level: row.dead ? "bad" : "" },
        number(row.capacity),
        { text: consumers, level: consumers === "none" ? "bad" : "" },
      ];
    }

    static where({ host, pid }) {
      return host ? `${host}:${pid}` : "?";
    }

    static version({ version, understood }) {
      return { text: version ?? "?", level: understood ? "" : "bad" };
    }

    static more(count) {
      return count ? `and ${number(count)} more` : "";
    }

    static rest({ shown, total, cut }, what) {
      const left = total - shown.length;
      if (cut) return `The largest of ${number(total)} ${what} that were looked at; there are more.`;
      return left > 0 ? `and ${number(left)} more ${what}` : "";
    }
  }

  const layerTables = new Map();

  const showLayers = (layers) => {
    const parent = byId("layers");
    for (const [name, tables] of layerTables) {
      if (layers.some((layer) => layer.layer === name)) continue;
      tables.element.remove();
      layerTables.delete(name);
    }
    for (const layer of layers) {
      if (!layerTables.has(layer.layer)) {
        const tables = new Layer();
        layerTables.set(layer.layer, tables);
        parent.append(tables.element);
      }
      layerTables.get(layer.layer).show(layer);
    }
  };

  const latencies = new Table("Answer times", [
    { title: "Channel" },
    { title: "A second", right: true },
    { title: "Median", right: true },
    { title: "95 %", right: true },
    { title: "99 %", right: true },
  ]);
  const counters = new Map();
  byId("counted").append(latencies.element);

  const showCounted = (counted, latency) => {
    latencies.element.hidden = !latency.length;
    latencies.show(latency.map((row) => [row.channel, number(row.rate), ...[row.p50, row.p95, row.p99].map(milliseconds)]));
    for (const { title, rows } of counted) {
      if (!counters.has(title)) {
        const table = new Table(title, [{ title: "Reason" }, { title: "Since start", right: true }, { title: "A minute", right: true }]);
        counters.set(title, table);
        byId("counted").append(table.element);
      }
      counters.get(title).show(rows.map((row) => [row.name, number(row.total), number(row.minute)]));
    }
    byId("counted-section").hidden = !latency.length && !counters.size;
  };

  const draw = () => charts.forEach((chart) => chart.draw(points));

  const show = (frame) => {
    heard = Date.now();
    points = [...points, frame.point].filter((each) => each.time > frame.point.time - SHOWN);
    showState("live", "Live");
    const moment = new Date(frame.point.time * 1000);
    byId("moment").dateTime = moment.toISOString();
    setText(byId("moment"), clock.format(moment));
    showNotes(byId("notes"), frame.notes.length ? frame.notes : [{ level: "good", text: "No problem was found." }]);
    showTiles(byId("tiles"), tiles(frame));
    byId("hint").hidden = !frame.hint;
    setText(byId("hint"), frame.hint);
    draw();
    showLayers(frame.layers);
    showCounted(frame.counted, frame.latency);
    if (frame.totals.dead !== dead) {
      dead = frame.totals.dead;
      bridge.send({ type: "letters" });
    }
  };

  bridge.listen((frame) => {
    if (frame.type === "history") {
      points = frame.points;
      draw();
    } else if (frame.type === "sample") {
      if (!isPaused) show(frame);
    } else if (frame.type === "letters") {
      letters.show(frame);
    } else if (frame.type === "done") {
      letters.done(frame);
    } else if (frame.type === "problem") {
      showNotes(byId("notes"), [{ level: "bad", text: frame.text }]);
    }
  });
  bridge.connect(socket);
})();
