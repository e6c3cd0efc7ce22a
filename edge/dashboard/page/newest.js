// The newest values of every key, with a spark line; only the lines in view are in the page.

import { h, patch } from "./dom.js";
import { clock, count, duration, value } from "./format.js";

const LINE = 40; // pixels, as in style.css
const MORE = 6; // lines above and below those in view
const UNUSUAL = 6; // times the usual deviation

/** A table that is scrolled through; `narrow` is searched for in keys and values. */
export class Newest {
  #host;
  #rows = [];
  #columns = [];
  #p = null;
  #words = "";
  #found;

  constructor(host, search, found) {
    this.#host = host;
    this.#found = found;
    search.addEventListener("input", () => {
      this.#words = search.value.trim().toLowerCase();
      this.show(this.#p, this.#now);
    });
    new ResizeObserver(() => this.#draw()).observe(host);
  }

  #now = 0;

  show(p, now) {
    this.#p = p;
    this.#now = now;
    if (!p) return;
    const all = p.order.map((name) => p.rows.get(name));
    const wanted = this.#words.split(/\s+/).filter(Boolean);
    this.#rows = wanted.length
      ? all.filter((row) => wanted.every((word) => row.text.includes(word)))
      : all;
    this.#columns = columns(all, p.newest.spark);
    this.#found.textContent = all.length
      ? `${count(this.#rows.length)} of ${count(all.length)} keys`
      : "";
    this.#draw();
  }

  #draw() {
    if (!this.#p) return;
    if (!this.#rows.length) {
      const text = this.#p.rows.size
        ? "No key or value has that in it."
        : "No row has come since the processor started.";
      patch(this.#host, h("p", { class: "empty" }, text));
      return;
    }
    const box = this.#host.querySelector(".table");
    const high = box?.clientHeight || 12 * LINE;
    const fit = Math.ceil(high / LINE);
    // Where fewer were found than were scrolled past, the browser scrolls back only afterwards.
    const top = Math.min(Math.floor((box?.scrollTop ?? 0) / LINE), this.#rows.length - fit);
    const first = Math.max(0, top - MORE);
    const shown = this.#rows.slice(first, first + fit + 2 * MORE);
    patch(this.#host, this.#table(first, shown));
  }

  #table(first, shown) {
    const { key, spark, time } = this.#p.newest;
    return h(
      "div",
      {
        class: "table",
        role: "table",
        tabindex: "0",
        "aria-label": "Newest values",
        "aria-rowcount": String(this.#rows.length + 1),
        "--columns": String(Math.max(1, this.#columns.length)),
        onscroll: () => this.#draw(),
      },
      h(
        "div",
        { role: "rowgroup", class: "head" },
        h(
          "div",
          { role: "row", class: "line", "aria-rowindex": "1" },
          cell("columnheader", "key", key.length ? key.join(" / ") : "series"),
          cell("columnheader", "spark", spark ? "lately" : ""),
          this.#columns.map(({ name, kind }) => cell("columnheader", kind, name)),
          cell("columnheader", "time", "heard"),
          cell("columnheader", "time", time),
        ),
      ),
      h(
        "div",
        { role: "rowgroup", class: "lines", "--lines": String(this.#rows.length) },
        shown.map((row, n) => this.#line(row, first + n)),
      ),
    );
  }

  #line(row, n) {
    const odd = unusual(row.spark);
    const spark = this.#p.newest.spark;
    return h(
      "div",
      {
        key: row.name,
        role: "row",
        class: `line ${odd ? "odd" : ""}`,
        "aria-rowindex": String(n + 2),
        "--at": String(n),
      },
      cell("rowheader", "key", row.name || "all rows"),
      h("div", { role: "cell", class: "spark" }, line(row.spark, odd)),
      this.#columns.map(({ name, kind }) =>
        h(
          "div",
          { key: name, role: "cell", class: kind },
          odd && name === spark ? h("span", { class: "hidden" }, "unusual: ") : null,
          value(row.values[name]),
        ),
      ),
      cell("cell", "time", heard(row.received, this.#now)),
      cell("cell", "time", when(row.time, this.#now)),
    );
  }
}

const cell = (role, name, text) => h("div", { role, class: name, title: text }, text);

/** What has a spark line first, then as many others as can be looked at. */
function columns(rows, spark) {
  const names = new Set(rows.slice(0, 50).flatMap((row) => Object.keys(row.values)));
  names.delete("edge_received");
  const others = [...names].filter((name) => name !== spark);
  return (spark && names.has(spark) ? [spark, ...others] : others).slice(0, 6).map((name) => {
    const known = rows.find((row) => row.values[name] != null)?.values[name];
    return { name, kind: typeof known === "number" ? "value" : "value text" };
  });
}

const heard = (time, now) =>
  time == null ? "–" : `${duration(now - Date.parse(time) / 1000)} ago`;

function when(time, now) {
  const at = Date.parse(time) / 1000;
  return Number.isFinite(at) ? clock(at, now) : value(time);
}

/** Whether the last point lies far outside of where those before it were: by median deviation. */
export function unusual(points) {
  const numbers = points.filter((point) => point != null);
  if (numbers.length < 10) return false;
  const before = numbers.slice(0, -1);
  const middle = median(before);
  const usual = median(before.map((point) => Math.abs(point - middle)));
  const least = Math.abs(middle) * 0.002 || 1e-9; // a value that never moves may move a little
  return Math.abs(numbers.at(-1) - middle) > UNUSUAL * Math.max(1.5 * usual, least);
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

function line(points, odd) {
  const numbers = points.map((point) => point ?? NaN);
  const known = numbers.filter(Number.isFinite);
  if (known.length < 2) return null;
  const low = Math.min(...known);
  const high = Math.max(...known);
  const at = (n, y) =>
    `${((n / (numbers.length - 1)) * 96 + 2).toFixed(1)} ${(high > low ? 22 - ((y - low) / (high - low)) * 20 : 12).toFixed(1)}`;
  let path = "";
  numbers.forEach((y, n) => {
    if (Number.isFinite(y)) path += `${Number.isFinite(numbers[n - 1]) ? "L" : "M"}${at(n, y)}`;
  });
  return h(
    "svg",
    { viewBox: "0 0 100 24", "aria-hidden": "true", class: odd ? "odd" : "" },
    h("path", { d: path }),
    h("circle", {
      cx: at(numbers.length - 1, known.at(-1)).split(" ")[0],
      cy: at(numbers.length - 1, known.at(-1)).split(" ")[1],
      r: "2",
    }),
  );
}
