/* Tables, tiles and notes of the dashboard.  Cells are changed in place, so that a selection and the focus stay. */
"use strict";

window.channelsqDashboard = (() => {
  const UNKNOWN = "–";
  const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
  const fine = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

  /** Returns a number as text; unknown ones as a dash. */
  const number = (value) => {
    if (value === null || value === undefined) return UNKNOWN;
    return (Number.isInteger(value) || Math.abs(value) >= 100 ? whole : fine).format(value);
  };

  /** Returns milliseconds as text. */
  const milliseconds = (value) => {
    if (value === null || value === undefined) return UNKNOWN;
    return value >= 1000 ? `${fine.format(value / 1000)} s` : `${number(value)} ms`;
  };

  /** Returns an age in seconds as text. */
  const age = (value) => {
    if (value === null || value === undefined) return UNKNOWN;
    return value < 600 ? `${fine.format(value)} s` : `${whole.format(value / 60)} min`;
  };

  /** Makes an element with a class, a text and attributes. */
  const make = (name, { text = "", className = "", ...attributes } = {}) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text) element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  const setText = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  const setClass = (element, name) => {
    if (element.className !== name) element.className = name;
  };

  /** Brings an element's children to a number, and calls `fill` with each and its item. */
  const fillChildren = (parent, items, add, fill) => {
    while (parent.children.length > items.length) parent.lastElementChild.remove();
    items.forEach((item, index) => {
      if (index === parent.children.length) parent.append(add());
      fill(parent.children[index], item);
    });
  };

  /** A table in a card. Columns have a title, and may be `right`; a cell is a text, or `{text, level, part}`. */
  class Table {
    constructor(title, columns) {
      this.element = make("div", { className: "card" });
      const id = `table-${(Table.count += 1)}`;
      this.heading = make("h3", { text: title, id });
      const scroll = make("div", { className: "scroll", tabindex: "0", role: "region", "aria-labelledby": id });
      this.table = make("table");
      const head = make("tr");
      columns.forEach((column) => {
        head.append(make("th", { text: column.title, scope: "col", className: column.right ? "right" : "" }));
      });
      const thead = make("thead");
      thead.append(head);
      this.body = make("tbody");
      this.table.append(thead, this.body);
      scroll.append(this.table);
      this.scroll = scroll;
      this.more = make("p", { className: "about" });
      this.element.append(this.heading, scroll, this.more);
      this.columns = columns;
    }

    /** Shows rows, and a line below them. */
    show(rows, more = "") {
      const cells = this.columns;
      fillChildren(
        this.body,
        rows,
        () => {
          const row = make("tr");
          cells.forEach((column, index) => {
            const cell = make(index ? "td" : "th", index ? {} : { scope: "row" });
            cell.append(make("span"));
            row.append(cell);
          });
          return row;
        },
        (row, values) => {
          values.forEach((value, index) => {
            const { text, level = "", part = null } = typeof value === "object" && value ? value : { text: value };
            const cell = row.children[index];
            setText(cell.firstElementChild, String(text));
            setClass(cell, [this.columns[index].right ? "right" : "", level].filter(Boolean).join(" "));
            Table.showPart(cell, part, level);
          });
        },
      );
      this.scroll.hidden = rows.length === 0;
      setText(this.more, more);
      this.more.hidden = !more;
    }

    /** Shows a bar for the used part of a capacity. */
    static showPart(cell, part, level) {
      let bar = cell.querySelector(".bar");
      if (part === null) {
        if (bar) bar.remove();
        return;
      }
      if (!bar) {
        bar = make("span", { className: "bar", "aria-hidden": "true" });
        bar.append(make("span"));
        cell.append(bar);
      }
      setClass(bar, `bar ${level}`.trim());
      bar.firstElementChild.style.width = `${Math.min(100, part * 100).toFixed(1)}%`;
    }
  }
  Table.count = 0;

  /** The large numbers. Tiles are `{title, text, level, about}`. */
  const showTiles = (list, tiles) => {
    fillChildren(
      list,
      tiles,
      () => {
        const tile = make("div", { className: "tile" });
        tile.append(make("dt"), make("dd"), make("dd", { className: "about" }));
        return tile;
      },
      (tile, { title, text, level = "", about = "" }) => {
        const [name, value, small] = tile.children;
        setText(name, title);
        setText(value, text);
        setText(small, about);
        setClass(tile, `tile ${level}`.trim());
      },
    );
  };

  /** The notes. The list is left alone if it is the same, so that it is not read aloud again. */
  const showNotes = (list, notes) => {
    const told = JSON.stringify(notes);
    if (list.dataset.told === told) return;
    list.dataset.told = told;
    fillChildren(
      list,
      notes,
      () => {
        const item = make("li");
        item.append(make("strong"), make("span"));
        return item;
      },
      (item, { level, text }) => {
        setClass(item, `note ${level}`);
        setText(item.firstElementChild, { bad: "Error", warn: "Warning", good: "Fine" }[level]);
        setText(item.lastElementChild, text);
      },
    );
  };

  return { UNKNOWN, Table, age, fillChildren, make, milliseconds, number, setText, showNotes, showTiles };
})();
