/* The live admin on changelists: it updates changed rows, marks removed ones and offers added ones. */
"use strict";

channelsqAdmin.ListPage = class {
  #data;
  #bar;
  #rows = new Map();
  /** The rows as the server rendered them. */
  #rendered = new Map();
  #changed = new Set();
  #removed = new Set();
  #added = new Set();
  #unknown = false;
  /** The reported changes that are not shown yet. */
  #told = { changed: new Set(), removed: new Set() };
  #timer = undefined;
  #lookedAt = -Infinity;
  #fetching = false;

  constructor(data, bar) {
    this.#data = data;
    this.#bar = bar;
    this.#rows = this.#rowsOf(document, data.rows) ?? new Map();
    for (const [key, row] of this.#rows) this.#rendered.set(key, this.#cells(row));
    document.addEventListener("visibilitychange", () => document.hidden || this.#look());
  }

  /** Return the rows of a changelist by primary key; null if they cannot be told apart. */
  #rowsOf(doc, keys) {
    const rows = [...doc.querySelectorAll("#result_list > tbody > tr")].filter((row) =>
      row.querySelector("[class*='field-'], .action-checkbox"),
    );
    return rows.length >= keys.length && keys.length ? new Map(keys.map((key, n) => [key, rows[n]])) : null;
  }

  #cells(row) {
    return [...row.cells].map((cell) =>
      cell.classList.contains("action-checkbox") ? "" : cell.innerHTML.replace(/\bform-\d+-/g, "form-N-"),
    );
  }

  people() {}

  rows({ changed, removed, added, more }) {
    for (const key of [...changed, ...added]) this.#told.changed.add(key);
    for (const key of removed) this.#told.removed.add(key);
    this.#unknown ||= more;
    this.#look();
  }

  /** Compare after a reconnection: any row may have changed. */
  returned() {
    for (const key of this.#data.rows) this.#told.changed.add(key);
    this.#unknown = true;
    this.#look();
  }

  /** Fetch the changelist after a short delay, at most every two seconds, and only in a visible tab. */
  #look() {
    clearTimeout(this.#timer);
    const { changed, removed } = this.#told;
    if (this.#fetching || document.hidden || !(changed.size || removed.size || this.#unknown)) return;
    const wait = Math.max(400, this.#lookedAt + 2000 - performance.now());
    this.#timer = setTimeout(async () => {
      this.#fetching = true;
      this.#told = { changed: new Set(), removed: new Set() };
      const unknown = this.#unknown;
      this.#unknown = false;
      try {
        await this.#compare(changed, removed, unknown);
      } finally {
        this.#lookedAt = performance.now();
        this.#fetching = false;
        this.#look();
      }
    }, wait);
  }

  async #fetched() {
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store", redirect: "error" });
      if (!answer.ok) return null;
      const doc = new DOMParser().parseFromString(await answer.text(), "text/html");
      const data = JSON.parse(doc.getElementById("channelsq-admin")?.textContent ?? "null");
      return data && { keys: data.rows, rows: this.#rowsOf(doc, data.rows) ?? new Map() };
    } catch {
      return null;
    }
  }

  async #compare(changed, removed, unknown) {
    for (const key of removed) this.#markRemoved(key);
    const found = changed.size || unknown ? await this.#fetched() : null;
    if (found) {
      for (const key of changed) {
        const row = found.rows.get(key);
        if (row) this.#showChanged(key, row);
        else if (this.#rows.has(key) && !unknown) this.#mark(key, "rowElsewhere", this.#changed);
      }
      for (const key of found.keys) {
        if (!this.#rows.has(key) && (unknown || changed.has(key))) this.#added.add(key);
      }
      if (unknown) {
        const isUnsure = [...this.#rows.keys()].some((key) => !found.rows.has(key) && !this.#removed.has(key));
        if (isUnsure) this.#bar.notice("unknown", this.#bar.text("unknown"));
      }
    }
    this.#tell();
  }

  #showChanged(key, stored) {
    const row = this.#rows.get(key);
    if (!row) return;
    this.#removed.delete(key);
    const cells = this.#cells(stored);
    const before = this.#rendered.get(key);
    if (cells.every((cell, n) => cell === before[n])) return;
    this.#rendered.set(key, cells);
    // In a popup the cells have links that the admin's scripts use.
    if (!document.body.classList.contains("popup") && !this.#data.bound && row.cells.length === stored.cells.length) {
      [...row.cells].forEach((cell, n) => {
        if (cells[n] !== before[n]) this.#renew(cell, stored.cells[n]);
      });
    }
    this.#mark(key, "rowChanged", this.#changed);
  }

  /** Update a cell, unless the user has typed into it. */
  #renew(cell, stored) {
    const controls = [...cell.querySelectorAll("input, select, textarea")];
    if (!controls.length) {
      cell.replaceChildren(...[...stored.childNodes].map((node) => document.importNode(node, true)));
      return;
    }
    const fresh = [...stored.querySelectorAll("input, select, textarea")];
    controls.forEach((control, n) => {
      const other = fresh[n];
      if (!other || other.localName !== control.localName || control.type === "hidden") return;
      if (control.type === "checkbox" || control.type === "radio") {
        if (control.checked === control.defaultChecked) control.checked = control.defaultChecked = other.defaultChecked;
      } else if (control.localName === "select") {
        const isUntouched = [...control.options].every((option) => option.selected === option.defaultSelected);
        if (isUntouched) control.replaceChildren(...[...other.options].map((option) => document.importNode(option, true)));
      } else if (control.value === control.defaultValue) {
        control.value = control.defaultValue = other.defaultValue;
      }
    });
  }

  #markRemoved(key) {
    const row = this.#rows.get(key);
    if (!row) return;
    this.#changed.delete(key);
    this.#mark(key, "rowRemoved", this.#removed);
    const box = row.querySelector("input.action-select");
    if (box) {
      if (box.checked) box.click();
      box.disabled = true;
    }
  }

  #mark(key, text, marked) {
    marked.add(key);
    const row = this.#rows.get(key);
    row.classList.remove("channelsq-changed", "channelsq-removed");
    void row.offsetWidth; // the highlight begins anew
    row.classList.add(text === "rowRemoved" ? "channelsq-removed" : "channelsq-changed");
    row.querySelector(".channelsq-mark")?.remove();
    const mark = document.createElement("span");
    mark.className = "channelsq-mark";
    mark.append(...this.#bar.text(text));
    (row.querySelector("th") ?? row.cells[row.cells.length - 1]).append(" ", mark);
  }

  #tell() {
    const counts = [
      ["rowsChanged", this.#changed],
      ["rowsRemoved", this.#removed],
      ["rowsAdded", this.#added],
    ].filter(([, keys]) => keys.size);
    if (!counts.length) return;
    const text = counts.map(([name, keys]) => this.#bar.plain(name, { count: String(keys.size) })).join(" · ");
    this.#bar.notice("rows", [document.createTextNode(text)], "info");
    this.#bar.offer("refresh", () => location.reload());
  }
};
