/* Charts of the dashboard, drawn by uPlot. */
"use strict";

(() => {
  const { make, fillChildren, setText, UNKNOWN } = channelsqDashboard;

  /** s: the time that a chart shows, and the gap in samples from which a line is broken. */
  const SHOWN = 300, GAP = Math.max(15, (3 * Number(document.body.dataset.every)) / 1000);
  /** The rows of the table below a chart. */
  const ROWS = 12;
  const HEIGHT = 180;
  /** The steps of axes of whole numbers. */
  const WHOLE = [1, 2, 5].flatMap((step) => [0, 1, 2, 3, 4, 5, 6].map((power) => step * 10 ** power)).sort((a, b) => a - b);
  const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
  const dashes = [[], [7, 4], [2, 3]];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  /** A chart with a legend and a table. Series are `{key, title}`; `format` makes a value's text. */
  class Chart {
    constructor(title, series, format, empty) {
      this.title = title;
      this.series = series;
      this.format = format;
      this.points = [];
      this.element = make("figure", { className: "card chart" });
      const caption = make("figcaption");
      caption.append(make("h3", { text: title }));
      this.legend = make("ul", { className: "legend", "aria-hidden": "true" });
      caption.append(this.legend);
      series.forEach(({ title: name }, index) => {
        const item = make("li");
        item.append(make("span", { className: `key key-${index}` }), make("span", { text: name }), make("b"));
        this.legend.append(item);
      });
      this.plot = make("div", { className: "plot", role: "img" });
      this.empty = make("p", { className: "empty", text: empty });
      const details = make("details");
      details.append(make("summary", { text: "As a table" }));
      const scroll = make("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, table` });
      const table = make("table");
      const head = make("tr");
      head.append(make("th", { text: "Time", scope: "col" }));
      series.forEach(({ title: name }) => head.append(make("th", { text: name, scope: "col", className: "right" })));
      const thead = make("thead");
      thead.append(head);
      this.body = make("tbody");
      table.append(thead, this.body);
      scroll.append(table);
      details.append(scroll);
      details.addEventListener("toggle", () => this.showTable());
      this.details = details;
      this.element.append(caption, this.plot, this.empty, details);
      new ResizeObserver(() => this.resize()).observe(this.plot);
    }

    /** Draws the points again, also in other colours. */
    draw(points, { anew = false } = {}) {
      this.points = points;
      const known = points.some((point) => this.series.some(({ key }) => point[key] !== null));
      this.empty.hidden = known || points.length === 0;
      this.plot.classList.toggle("unknown", !this.empty.hidden);
      this.legend.hidden = !this.empty.hidden;
      if (anew && this.chart) {
        this.chart.destroy();
        this.chart = null;
      }
      if (!this.chart) this.chart = new uPlot(this.options(), this.data(), this.plot);
      else this.chart.setData(this.data());
      this.showValues(points.length - 1);
      this.describe();
      this.showTable();
    }

    /** Returns the columns for uPlot, with a break where samples are missing. */
    data() {
      const times = [], columns = this.series.map(() => []);
      let last = null;
      for (const point of this.points) {
        if (last !== null && point.time - last > GAP) {
          times.push(last + 1);
          columns.forEach((column) => column.push(null));
        }
        times.push(point.time);
        columns.forEach((column, index) => column.push(point[this.series[index].key]));
        last = point.time;
      }
      return [times, ...columns];
    }

    options() {
      const axis = {
        stroke: colour("muted"),
        font: "12px system-ui, sans-serif",
        grid: { stroke: colour("line"), width: 1 },
        ticks: { show: false },
      };
      return {
        width: Math.max(120, this.plot.clientWidth),
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
        scales: {
          x: { time: true, range: () => this.span() },
          y: { range: (_, __, most) => [0, Math.max(most || 0, 1) * 1.1] },
        },
        axes: [
          { ...axis, size: 28, gap: 4, space: 80, values: (_, splits) => splits.map((time) => this.label(time)) },
          { ...axis, size: 58, space: 36, incrs: WHOLE, values: (_, splits) => splits.map((value) => this.format(value)) },
        ],
        series: [
          {},
          ...this.series.map((each, index) => ({
            label: each.title,
            stroke: colour(`series-${index}`),
            width: 2,
            dash: dashes[index],
            fill: this.series.length === 1 ? colour("series-fill") : undefined,
            points: { size: 5, fill: colour(`series-${index}`) },
          })),
        ],
        hooks: {
          setCursor: [(plot) => this.showValues(plot.cursor.idx ?? this.points.length - 1, plot.data)],
        },
      };
    }

    /** Returns the label of a time, with seconds while the axis is short. */
    label(time) {
      const [start, end] = this.span();
      const moment = new Date(time * 1000);
      const parts = [moment.getHours(), moment.getMinutes(), ...(end - start < 150 ? [moment.getSeconds()] : [])];
      return parts.map((part) => String(part).padStart(2, "0")).join(":");
    }

    /** Returns the ends of the time axis: at least a minute, so that the first samples are not at its edge. */
    span() {
      if (!this.points.length) return [Date.now() / 1000 - SHOWN, Date.now() / 1000];
      const end = this.points[this.points.length - 1].time;
      return [Math.max(end - SHOWN, Math.min(this.points[0].time, end - 60)), end];
    }

    /** Shows the values at the cursor in the legend, otherwise the last ones. */
    showValues(index, data = null) {
      this.series.forEach(({ key }, number) => {
        const value = data && this.chart ? data[number + 1]?.[index] : this.points[index]?.[key];
        setText(this.legend.children[number].lastElementChild, value === null || value === undefined ? UNKNOWN : this.format(value));
      });
    }

    describe() {
      const last = this.points[this.points.length - 1];
      const values = this.series.map(({ key, title }) => {
        const value = last ? last[key] : null;
        return `${title} ${value === null || value === undefined ? "unknown" : this.format(value)}`;
      });
      this.plot.setAttribute("aria-label", `${this.title}, now: ${values.join(", ")}. A table follows.`);
    }

    showTable() {
      if (!this.details.open) return;
      const rows = this.points.slice(-ROWS).reverse();
      fillChildren(
        this.body,
        rows,
        () => {
          const row = make("tr");
          row.append(make("th", { scope: "row" }), ...this.series.map(() => make("td", { className: "right" })));
          return row;
        },
        (row, point) => {
          setText(row.firstElementChild, clock.format(new Date(point.time * 1000)));
          this.series.forEach(({ key }, index) => {
            setText(row.children[index + 1], point[key] === null ? UNKNOWN : this.format(point[key]));
          });
        },
      );
    }

    resize() {
      if (this.chart && this.plot.clientWidth) this.chart.setSize({ width: this.plot.clientWidth, height: HEIGHT });
    }
  }

  channelsqDashboard.Chart = Chart;
  channelsqDashboard.SHOWN = SHOWN;
})();
