/* The live admin's bar at the lower edge of a page: other people on the page, and changes. */
"use strict";

var channelsqAdmin = {};

channelsqAdmin.Bar = class {
  #texts;
  #people;
  #notices;
  #problem;
  #actions;
  #said = new Map();

  /** @param {Record<string, string>} texts in the page's language */
  constructor(texts) {
    this.#texts = texts;
    const bar = document.createElement("section");
    bar.className = "channelsq-bar";
    bar.setAttribute("aria-label", texts.region);
    // Created at once, so that a screen reader announces later contents.
    const status = document.createElement("div");
    status.setAttribute("role", "status");
    this.#people = this.#part("ul", "channelsq-people", status);
    this.#notices = this.#part("ul", "channelsq-notices", status);
    this.#problem = this.#part("p", "channelsq-problem", status);
    bar.append(status);
    this.#actions = this.#part("div", "channelsq-actions", bar);
    const content = document.getElementById("content-main") ?? document.querySelector("main") ?? document.body;
    // Below the form, and at the window's lower edge until that is visible, so that no field moves while somebody types.
    content.append(bar);
    this.element = bar;
  }

  #part(tag, className, parent) {
    const part = document.createElement(tag);
    part.className = className;
    part.hidden = true;
    parent.append(part);
    return part;
  }

  /**
   * Return a text with its values as nodes; no value is parsed as HTML.
   *
   * @param {string} name
   * @param {Record<string, string>} [values]
   * @returns {Node[]}
   */
  text(name, values = {}) {
    return this.#texts[name].split(/(%\(\w+\)s)/).map((part) => {
      const key = /^%\((\w+)\)s$/.exec(part)?.[1];
      if (key === undefined) return document.createTextNode(part);
      if (key !== "name") return document.createTextNode(values[key]);
      const strong = document.createElement("strong");
      strong.textContent = values[key];
      return strong;
    });
  }

  /** @param {string} name @param {Record<string, string>} [values] */
  plain(name, values) {
    return this.text(name, values).map((node) => node.textContent).join("");
  }

  /** @param {number} seconds since the epoch */
  time(seconds) {
    const moment = new Date(seconds * 1000);
    const today = moment.toDateString() === new Date().toDateString();
    const options = today ? { timeStyle: "short" } : { dateStyle: "short", timeStyle: "short" };
    return new Intl.DateTimeFormat(document.documentElement.lang || undefined, options).format(moment);
  }

  /** @param {{ name: string, since: number, edits: boolean, you: boolean }[]} people @param {number} more */
  showPeople(people, more) {
    const items = people.map(({ name, since, edits, you }) => {
      const item = document.createElement("li");
      item.className = edits ? "channelsq-edits" : "channelsq-looks";
      const text = you ? "youEdit" : edits ? "edits" : "looks";
      item.append(...this.text(text, { name, time: this.time(since) }));
      return item;
    });
    if (more > 0) {
      const item = document.createElement("li");
      item.append(...this.text("more", { count: String(more) }));
      items.push(item);
    }
    this.#fill(this.#people, items);
  }

  /**
   * Show a notice in place of the one with the same key.
   *
   * @param {string} key
   * @param {Node[]} nodes empty to remove the notice
   * @param {"info" | "warning" | "error"} [level]
   */
  notice(key, nodes, level = "warning") {
    this.#said.delete(key);
    if (nodes.length) {
      const item = document.createElement("li");
      item.className = `channelsq-${level}`;
      item.append(...nodes);
      this.#said.set(key, item);
    }
    this.#fill(this.#notices, [...this.#said.values()].slice(-5));
  }

  /** @param {boolean} isLost */
  showLost(isLost) {
    this.#fill(this.#problem, isLost ? this.text("offline") : []);
    this.#people.hidden = isLost || !this.#people.childElementCount;
    this.#update();
  }

  /** @param {string} text @param {() => void} act */
  offer(text, act) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button";
    button.append(...this.text(text));
    button.addEventListener("click", act);
    // Keep the button, and so the focus, if it exists already.
    if (this.#actions.textContent !== button.textContent) this.#fill(this.#actions, [button]);
  }

  withdrawOffer() {
    this.#fill(this.#actions, []);
  }

  #fill(part, nodes) {
    const before = [...part.childNodes].map((node) => node.textContent).join("\n");
    if (before !== nodes.map((node) => node.textContent).join("\n")) part.replaceChildren(...nodes);
    part.hidden = !nodes.length;
    this.#update();
  }

  #update() {
    const parts = [this.#people, this.#notices, this.#problem, this.#actions];
    this.element.classList.toggle("channelsq-filled", parts.some((part) => !part.hidden));
  }
};
