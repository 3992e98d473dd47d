// Buttons above the input: the commands after "/", and the people here after "@".

import { me } from "./names.js";
import { namesHere } from "./people.js";

const MOST = 6;
const COMMANDS = [
  { insert: "/ask ", label: "/ask", about: "a question to the assistant" },
  { insert: "/import", label: "/import", about: "the rows of a CSV file, or samples" },
];

const input = document.getElementById("text");
const area = document.getElementById("suggestions");

function matches() {
  const before = input.value.slice(0, input.selectionStart);
  if (/^\/[a-z]*$/.test(input.value)) {
    const found = COMMANDS.filter(({ label }) => label.startsWith(input.value) && label !== input.value);
    return { from: 0, found };
  }
  const [, begin] = before.match(/(?:^|\s)@([\w.+-]*)$/) ?? [];
  if (begin === undefined) return { from: 0, found: [] };
  const others = namesHere().filter((name) => name !== me && name !== begin);
  const found = others.filter((name) => name.toLowerCase().startsWith(begin.toLowerCase()));
  return {
    from: before.length - begin.length - 1,
    found: found.slice(0, MOST).map((name) => ({ insert: `@${name} `, label: `@${name}`, about: "" })),
  };
}

function choose({ insert }, from) {
  const end = input.selectionStart;
  input.setRangeText(insert, from, end, "end");
  input.focus();
  input.dispatchEvent(new Event("input", { bubbles: true }));
}

export function suggest() {
  const { from, found } = matches();
  const buttons = found.map((each) => {
    const button = document.createElement("button");
    button.type = "button";
    const label = document.createElement("b");
    label.textContent = each.label;
    button.append(label, each.about && ` ${each.about}`);
    button.addEventListener("click", () => choose(each, from));
    return button;
  });
  area.replaceChildren(...buttons);
  area.hidden = !buttons.length;
}

export function begin() {
  input.addEventListener("input", suggest);
  area.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const buttons = [...area.children];
    if (step) buttons.at((buttons.indexOf(document.activeElement) + step) % buttons.length).focus();
    else if (event.key === "Escape") input.focus();
    else return;
    event.preventDefault();
  });
  input.addEventListener("keydown", (event) => {
    if (area.hidden || event.isComposing) return;
    if (event.key === "Escape") area.hidden = true;
    else if (event.key === "ArrowUp") area.firstElementChild.focus();
    else return;
    event.preventDefault();
  });
}
