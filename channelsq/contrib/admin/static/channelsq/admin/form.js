/* The live admin on the pages of one object: the fields that others saved, and a reload that keeps the user's input. */
"use strict";

/* The values of an admin form, by keys that stay the same when inline forms are added or removed elsewhere. */
channelsqAdmin.FormState = class {
  /** @param {Document} doc the page, or one that was fetched */
  constructor(doc) {
    const content = doc.getElementById("content-main") ?? doc.body;
    this.doc = doc;
    this.form = content.querySelector("form[id$='_form']") ?? content.querySelector("form[method=post]") ?? content;
  }

  /**
   * Return the controls by key; controls of one name share a key.
   *
   * @returns {Map<string, HTMLElement[]>}
   */
  controls() {
    const found = new Map();
    for (const control of this.form.querySelectorAll("input[name], select[name], textarea[name]")) {
      const { name, type } = control;
      if (type === "submit" || type === "button" || control.closest(".empty-form") || name.includes("__prefix__")) continue;
      if (/^(_|initial-|csrfmiddlewaretoken$|action$|select_across$|index$)/.test(name)) continue;
      if (/-(TOTAL|INITIAL|MIN_NUM|MAX_NUM)_FORMS$/.test(name) || control.id.endsWith("_from")) continue;
      const key = this.#key(name);
      found.set(key, [...(found.get(key) ?? []), control]);
    }
    return found;
  }

  /** Return the rendered values by key, also of read-only fields.  @returns {Map<string, string>} */
  rendered() {
    const values = new Map([...this.controls()].map(([key, controls]) => [key, this.renderedValue(controls)]));
    for (const shown of this.form.querySelectorAll(".readonly, td[class*='field-'] > p")) {
      if (shown.closest(".empty-form")) continue;
      const holder = shown.closest("[class*='field-']");
      const field = /(?:^|\s)field-(\S+)/.exec(holder?.className ?? "")?.[1];
      const row = shown.closest(".inline-related[id], tr.form-row[id]");
      if (field) values.set(`${row ? this.#key(`${row.id}-${field}`) : field}:shown`, shown.textContent.trim());
    }
    return values;
  }

  /** Return the present values of the controls.  @returns {Map<string, string>} */
  current() {
    return new Map([...this.controls()].map(([key, controls]) => [key, JSON.stringify(this.values(controls))]));
  }

  /** @param {HTMLElement[]} controls @returns {string[]} */
  values(controls) {
    return controls.flatMap((control) => {
      if (control.type === "checkbox" || control.type === "radio") return control.checked ? [control.value] : [];
      if (control.type === "file") return [...control.files].map((file) => file.name);
      if (control.localName !== "select") return [control.value.replaceAll("\r\n", "\n")];
      // The options in the right-hand box of two are chosen; the admin selects them only when the form is sent.
      const isBox = control.id.endsWith("_to") && this.doc.getElementById(control.id.replace(/_to$/, "_from"));
      return [...(isBox ? control.options : control.selectedOptions)].map((option) => option.value).sort();
    });
  }

  /** Return the value that the server rendered into controls.  @param {HTMLElement[]} controls @returns {string} */
  renderedValue(controls) {
    const values = controls.flatMap((control) => {
      if (control.type === "checkbox" || control.type === "radio") return control.defaultChecked ? [control.value] : [];
      if (control.type === "file") return [];
      if (control.localName !== "select") return [control.defaultValue.replaceAll("\r\n", "\n")];
      const chosen = [...control.options].filter((option) => option.defaultSelected);
      if (!chosen.length && !control.multiple && control.options.length) chosen.push(control.options[0]);
      return chosen.map((option) => option.value).sort();
    });
    const stored = controls[0].type === "file" && controls[0].closest(".file-upload, p, td")?.querySelector("a[href]");
    return JSON.stringify(stored ? [stored.getAttribute("href")] : values);
  }

  /** Return a control's name with the object's key in place of the number of its inline form. */
  #key(name) {
    const found = /^(.+)-(\d+)-(.+)$/.exec(name);
    const initial = found && this.form.querySelector(`[name="${CSS.escape(`${found[1]}-INITIAL_FORMS`)}"]`);
    if (!initial) return name;
    const [, prefix, index, field] = found;
    const number = Number(index) - Number(initial.value);
    if (number >= 0) return `${prefix}/+${number}/${field}`;
    return `${prefix}/${this.#objectKey(prefix, index)}/${field}`;
  }

  #objectKey(prefix, index) {
    const start = CSS.escape(`${prefix}-${index}-`);
    const id = this.form.querySelector(`input[type=hidden][name="${start}id"]`);
    return (id ?? this.form.querySelector(`input[type=hidden][name^="${start}"]`))?.value || `#${index}`;
  }

  /** Return the row of an inline's object, or of a new one.  @param {string} key */
  row(key) {
    const [prefix, object] = key.split("/");
    for (const row of this.form.querySelectorAll(".inline-related[id], tr.form-row[id]")) {
      if (!row.classList.contains("empty-form") && this.#key(`${row.id}-x`) === `${prefix}/${object}/x`) return row;
    }
    return null;
  }

  /** Return the label of a field, as the page shows it.  @param {string} key */
  label(key) {
    const [prefix, , inlineField] = key.split("/");
    const row = inlineField === undefined ? null : this.row(key);
    const name = (inlineField ?? key).replace(/:shown$/, "");
    const holder = (row ?? this.form).querySelector(`.field-${CSS.escape(name.replace(/_\d+$/, ""))}, .field-${CSS.escape(name)}`);
    let label = "";
    if (holder?.localName === "td") {
      label = holder.closest("table").tHead?.rows[0].cells[holder.cellIndex]?.textContent;
    } else if (holder) {
      const control = (row ?? this.form).querySelector(`[name$="${CSS.escape(name)}"]`);
      const line = control?.id && this.form.querySelector(`label[for="${CSS.escape(control.id)}"]`);
      label = (holder.classList.contains("fieldBox") ? holder : line || holder)
        .parentElement.querySelector("legend, label")?.textContent;
      if (line && !holder.querySelector("legend")) label = line.textContent;
      else label = holder.querySelector("legend, label")?.textContent ?? label;
    }
    label = (label ?? "").trim().replace(/:$/, "") || name;
    return row ? `${this.rowLabel(key)} › ${label}` : label;
  }

  /** Return the name of an inline's object, as the page shows it.  @param {string} key */
  rowLabel(key) {
    const row = this.row(key);
    const [prefix] = key.split("/");
    const heading = this.doc.getElementById(`${prefix}-heading`)?.textContent.trim() ?? prefix;
    const original = row?.querySelector(".original p, .inline_label")?.firstChild?.textContent.trim();
    return original ? `${heading} › ${original}` : heading;
  }
};

/* The page of one object: its form, its history, or the confirmation of its deletion. */
channelsqAdmin.ObjectPage = class {
  #data;
  #bar;
  /** The rendered values, and those of the last comparison. */
  #baseline = null;
  #known = null;
  #waiting = [];
  #changed = new Map();
  #timer = undefined;
  #fetching = false;
  #leaving = false;
  #ended = false;
  #ready;

  constructor(data, bar) {
    this.#data = data;
    this.#bar = bar;
    this.state = new channelsqAdmin.FormState(document);
    this.#ready = this.#begin();
    document.addEventListener("submit", (event) => {
      if (!event.target.closest("#content-main")) return;
      // The page does not report its own save.  If the page is still here after that time, the save failed.
      this.#leaving = true;
      setTimeout(() => (this.#leaving = false), 15_000);
    });
    document.addEventListener("visibilitychange", () => document.hidden || this.#look());
  }

  async #begin() {
    const shown = this.#data.bound ? (await this.#fetched())?.state : this.state;
    this.#baseline = this.#known = shown?.rendered() ?? null;
    this.#restore();
  }

  people({ people, more }) {
    this.#bar.showPeople(people, more);
  }

  saved({ by, you, at }) {
    if (this.#leaving || this.#ended) return;
    this.#waiting.push({ by, you, at: at ?? Date.now() / 1000 });
    this.#look();
  }

  deleted({ by, you, at }) {
    if (this.#leaving || this.#ended) return;
    this.#ended = true;
    const text = by === null ? "gone" : you ? "youDeleted" : "deleted";
    this.#bar.notice("deleted", this.#bar.text(text, { name: by, time: this.#bar.time(at ?? Date.now() / 1000) }), "error");
    this.#bar.withdrawOffer();
  }

  /** Compare after a reconnection: no event reports saves of the meantime. */
  returned() {
    this.saved({ by: null, you: false, at: null });
  }

  /** Fetch the stored object after a short delay, and only in a visible tab. */
  #look() {
    clearTimeout(this.#timer);
    if (!this.#waiting.length || this.#fetching || document.hidden) return;
    this.#timer = setTimeout(async () => {
      this.#fetching = true;
      const savers = this.#waiting.splice(0);
      try {
        await this.#ready;
        await this.#compare(savers);
      } finally {
        this.#fetching = false;
        this.#look();
      }
    }, 400);
  }

  async #fetched() {
    try {
      const url = new URL(location.href);
      url.hash = "";
      const answer = await fetch(url, { credentials: "same-origin", cache: "no-store", redirect: "error" });
      if (!answer.ok) return null;
      const doc = new DOMParser().parseFromString(await answer.text(), "text/html");
      return { doc, state: new channelsqAdmin.FormState(doc) };
    } catch {
      return null; // deleted, no longer to be seen, or a server that is away
    }
  }

  async #compare(savers) {
    if (this.#leaving || this.#ended) return;
    if (this.#data.kind !== "change") {
      const { by, you, at } = savers.at(-1);
      if (by !== null) this.#tell({ by, you, at }, []);
      this.#bar.offer("reloadOnly", () => this.#reload());
      return;
    }
    const found = await this.#fetched();
    if (!found || !this.#known) return;
    const stored = found.state.rendered();
    const fields = this.#difference(this.#known, stored, found.state);
    this.#known = stored;
    const all = this.#difference(this.#baseline, stored, found.state);
    this.#changed = all;
    if (fields.size) this.#tell(savers.findLast(({ by }) => by !== null) ?? savers.at(-1), [...fields.values()]);
    if (all.size) this.#bar.offer("reload", () => this.#reload());
    else this.#bar.withdrawOffer();
  }

  #tell({ by, you, at }, fields) {
    const text = by === null ? "changed" : you ? "youSaved" : "saved";
    const values = { name: by, time: this.#bar.time(at), fields: [...new Set(fields)].join(", ") || "–" };
    this.#bar.notice(`saved ${by} ${at}`, this.#bar.text(text, values));
  }

  /** Return the fields in which two states differ, with their labels.  @returns {Map<string, string>} */
  #difference(before, after, state) {
    const fields = new Map();
    const told = new Set();
    for (const key of new Set([...before.keys(), ...after.keys()])) {
      if (before.get(key) === after.get(key)) continue;
      const object = key.split("/").slice(0, 2).join("/");
      if (key.includes("/+") || told.has(object)) continue; // rows for what is not there yet
      if (key.includes("/") && !(before.has(key) && after.has(key))) {
        told.add(object);
        const [text, page] = after.has(key) ? ["added", state] : ["removed", this.state];
        fields.set(key, this.#bar.plain(text, { name: page.rowLabel(key) }));
      } else {
        fields.set(key, (after.has(key) ? state : this.state).label(key));
      }
    }
    return fields;
  }

  // -- a reload that keeps the input

  get #place() {
    return `channelsq-admin ${location.pathname}`;
  }

  #reload() {
    this.#leaving = true;
    if (this.#data.kind === "change" && this.#baseline) {
      const kept = {};
      for (const [key, controls] of this.state.controls()) {
        const values = this.state.values(controls);
        if (JSON.stringify(values) === (this.#baseline.get(key) ?? this.state.renderedValue(controls))) continue;
        if (controls[0].type === "hidden") continue;
        if (controls[0].type === "file" && !values.length) continue;
        const cannot = controls[0].type === "password" || controls[0].type === "file";
        const texts = [...(controls[0].selectedOptions ?? [])].map((option) => [option.value, option.text]);
        kept[key] = { values: cannot ? null : values, texts, label: this.state.label(key), both: this.#changed.has(key) };
      }
      try {
        if (Object.keys(kept).length) sessionStorage.setItem(this.#place, JSON.stringify(kept));
      } catch {
        return this.#bar.notice("kept", this.#bar.text("lost", { fields: Object.values(kept).map((each) => each.label).join(", ") }));
      }
    }
    const url = new URL(location.href);
    url.hash = "";
    location.replace(url);
    return undefined;
  }

  #restore() {
    const text = sessionStorage.getItem(this.#place);
    if (text === null) return;
    sessionStorage.removeItem(this.#place);
    const kept = Object.entries(JSON.parse(text));
    // The admin's own scripts start later, and see the values that are written now; they also add rows.
    const left = kept.filter(([key, entry]) => !this.#write(key, entry));
    const finish = async () => {
      const lost = [];
      for (const [key, entry] of left) if (!((await this.#addRow(key)) && this.#write(key, entry))) lost.push(entry.label);
      const back = kept.filter(([, entry]) => !lost.includes(entry.label));
      this.#say("kept", back.filter(([, { both }]) => !both), "info");
      this.#say("both", back.filter(([, { both }]) => both), "warning");
      if (lost.length) this.#bar.notice("lost", this.#bar.text("lost", { fields: [...new Set(lost)].join(", ") }));
    };
    finish();
  }

  #say(text, entries, level) {
    const labels = [...new Set(entries.map(([, { label }]) => label))];
    if (labels.length) this.#bar.notice(text, this.#bar.text(text, { fields: labels.join(", ") }), level);
  }

  /** Add rows to an inline until one has a key; return false if none gets it.  @returns {Promise<boolean>} */
  async #addRow(key) {
    const prefix = /^(.+)\/\+\d+\//.exec(key)?.[1];
    if (prefix === undefined) return false;
    const until = performance.now() + 5000;
    const link = () => document.querySelector(`#${CSS.escape(prefix)}-group .add-row a`);
    while (!link() && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 50));
    for (let tries = 0; link() && !this.state.row(key) && tries < 50; tries += 1) link().click();
    return this.state.row(key) !== null;
  }

  /** Write values into the controls of a key; return false if there are none.  */
  #write(key, { values, texts }) {
    const controls = values && this.state.controls().get(key);
    if (!controls) return false;
    for (const control of controls) {
      if (control.type === "checkbox" || control.type === "radio") control.checked = values.includes(control.value);
      else if (control.localName === "select") this.#choose(control, values, new Map(texts));
      else control.value = values[0] ?? "";
      control.classList.add("channelsq-kept");
      for (const type of ["input", "change"]) control.dispatchEvent(new Event(type, { bubbles: true }));
    }
    return true;
  }

  #choose(select, values, texts) {
    const known = new Set([...select.options].map((option) => option.value));
    for (const value of values) if (!known.has(value)) select.add(new Option(texts.get(value) ?? value, value));
    for (const option of select.options) option.selected = values.includes(option.value);
  }
};
