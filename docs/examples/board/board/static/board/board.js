/* The board's page: what the server sent with it, and every change since, through one socket with four streams. */

const state = JSON.parse(document.getElementById("state").textContent);
const cards = new Map(state.cards.map((card) => [card.pk, card]));
const comments = new Map(state.comments.map((comment) => [comment.pk, comment]));
const activity = [...state.activity];
const openers = new Map(); // by card: the names of those who have it open
let opened = null; // the card in the dialog

const dialog = document.getElementById("card");
const form = dialog.querySelector("form");
const connection = document.getElementById("connection");

// -- the socket

const bridge = new channels.WebSocketBridge();
bridge.connect(`/boards/${state.slug}/`);
bridge.listen();

bridge.demultiplex("cards", ({ action, pk, data }) => {
  if (action === "delete") {
    cards.delete(pk);
    if (opened === pk) dialog.close("gone");
  } else {
    cards.set(pk, { pk, ...data });
  }
  draw();
});

bridge.demultiplex("comments", ({ action, pk, data }) => {
  if (action === "delete") comments.delete(pk);
  else comments.set(pk, { pk, ...data });
  draw();
});

bridge.demultiplex("activity", ({ data }) => {
  activity.unshift(data.text);
  activity.splice(10);
  draw();
});

bridge.demultiplex("presence", ({ user, card, open }) => {
  const names = openers.get(card) ?? new Set();
  if (open) names.add(user);
  else names.delete(user);
  openers.set(card, names);
  draw();
});

bridge.demultiplex("notices", ({ text }) => {
  const notice = document.getElementById("notice");
  notice.textContent = text;
  notice.hidden = false;
});

let dropped = false;
bridge.socket.addEventListener("open", async () => {
  if (dropped) await catchUp();
  if (opened !== null) send("presence", { card: opened });
  connection.textContent = "live";
  document.body.dataset.live = "1";
});
bridge.socket.addEventListener("close", () => {
  dropped = true;
  connection.textContent = "connecting";
  delete document.body.dataset.live;
});

async function catchUp() {
  const answer = await fetch(location.href);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const now = JSON.parse(page.getElementById("state").textContent);
  cards.clear();
  comments.clear();
  openers.clear();
  for (const card of now.cards) cards.set(card.pk, card);
  for (const comment of now.comments) comments.set(comment.pk, comment);
  activity.splice(0, Infinity, ...now.activity);
  if (opened !== null && !cards.has(opened)) dialog.close("gone");
  draw();
}

// -- what is on the page

function draw() {
  for (const column of state.columns) {
    const list = document.querySelector(`[data-column="${column.pk}"] ol`);
    const inside = [...cards.values()].filter((card) => card.column === column.pk);
    inside.sort((one, other) => one.position - other.position || one.pk - other.pk);
    list.replaceChildren(...inside.map(drawCard));
  }
  document.querySelector("#activity ol").replaceChildren(...activity.map((text) => item(text)));
  if (opened !== null) drawDialog();
}

function drawCard(card) {
  const element = document.getElementById("card-template").content.firstElementChild.cloneNode(true);
  const others = [...(openers.get(card.pk) ?? [])].filter((name) => name !== state.user);
  const said = [...comments.values()].filter((comment) => comment.card === card.pk).length;
  element.dataset.card = card.pk;
  element.draggable = state.mayChange;
  element.querySelector(".title").textContent = card.title;
  element.querySelector(".who").textContent = others.length ? `open: ${others.join(", ")}` : "";
  element.querySelector(".count").textContent = ["", "1 comment"][said] ?? `${said} comments`;
  element.querySelector(".moves").hidden = !state.mayChange;
  return element;
}

function drawDialog() {
  const others = [...(openers.get(opened) ?? [])].filter((name) => name !== state.user);
  const said = [...comments.values()].filter((comment) => comment.card === opened);
  form.querySelector(".others").textContent = others.length ? `Also open for ${others.join(", ")}` : "";
  form.querySelector(".comments").replaceChildren(...said.map((each) => item(`${each.author}: ${each.text}`)));
}

function item(text) {
  const element = document.createElement("li");
  element.textContent = text;
  return element;
}

for (const column of state.columns) {
  const element = document.getElementById("column-template").content.firstElementChild.cloneNode(true);
  element.dataset.column = column.pk;
  element.querySelector("h2").textContent = column.title;
  element.querySelector("form").hidden = !state.mayChange;
  document.getElementById("columns").append(element);
}
for (const column of state.elsewhere) form.elements.column.add(new Option(column.title, column.pk));
draw();

// -- what the user does

function send(stream, payload) {
  bridge.stream(stream).send(payload);
}

function last(column) {
  return Math.max(0, ...[...cards.values()].filter((card) => card.column === column).map((card) => card.position)) + 1;
}

function move(pk, column) {
  if (cards.get(pk).column !== column) send("cards", { action: "update", pk, data: { column, position: last(column) } });
}

function open(pk) {
  const card = cards.get(pk);
  opened = pk;
  form.elements.title.value = card.title;
  form.elements.text.value = card.text;
  form.elements.column.value = "";
  form.querySelector(".elsewhere").hidden = !state.mayChange || !state.elsewhere.length;
  for (const field of form.querySelectorAll("input, textarea, button[value=save], button[value=delete]")) {
    field.disabled = !state.mayChange;
  }
  drawDialog();
  dialog.showModal();
  send("presence", { card: pk });
}

const columns = document.getElementById("columns");

columns.addEventListener("submit", (event) => {
  event.preventDefault();
  const column = Number(event.target.closest("[data-column]").dataset.column);
  const { title } = event.target.elements;
  send("cards", { action: "create", data: { column, title: title.value, text: "", position: last(column) } });
  event.target.reset();
});

columns.addEventListener("click", (event) => {
  const element = event.target.closest("[data-card]");
  if (!element) return;
  const pk = Number(element.dataset.card);
  const step = event.target.closest("button")?.value;
  if (step === undefined) return open(pk);
  const place = state.columns.findIndex((column) => column.pk === cards.get(pk).column) + Number(step);
  if (state.columns[place]) move(pk, state.columns[place].pk);
});

columns.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("[data-card]")) open(Number(event.target.dataset.card));
});

columns.addEventListener("dragstart", (event) => {
  event.dataTransfer.setData("text/plain", event.target.dataset.card);
});
columns.addEventListener("dragover", (event) => {
  if (event.target.closest("[data-column]")) event.preventDefault();
});
columns.addEventListener("drop", (event) => {
  event.preventDefault();
  const column = event.target.closest("[data-column]");
  const pk = Number(event.dataTransfer.getData("text/plain"));
  if (column && cards.has(pk)) move(pk, Number(column.dataset.column));
});

form.elements.comment.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  if (event.target.value) send("comments", { action: "create", data: { card: opened, text: event.target.value } });
  event.target.value = "";
});

dialog.addEventListener("close", () => {
  const pk = opened;
  opened = null;
  if (!cards.has(pk)) return; // somebody else has deleted it
  send("presence", { card: null });
  if (dialog.returnValue === "delete") send("cards", { action: "delete", pk });
  if (dialog.returnValue !== "save") return;
  const data = { title: form.elements.title.value, text: form.elements.text.value };
  const elsewhere = Number(form.elements.column.value);
  send("cards", { action: "update", pk, data: elsewhere ? { ...data, column: elsewhere } : data });
});
