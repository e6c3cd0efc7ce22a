// How full the outbox is, and how it filled and emptied in the last hours.

import { h, patch } from "./dom.js";
import { count, duration, percent, size, untilFull } from "./format.js";

const HEIGHT = 210;
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500]
  .flatMap((n) => [n, n * 1024, n * 1024 ** 2, n * 1024 ** 3])
  .sort((a, b) => a - b);

export function room(p) {
  const { bytes, max_bytes: most, hours_until_full: hours } = p.outbox;
  if (bytes == null) return h("p", { class: "empty" }, "The outbox has not been looked at yet.");
  const share = most ? bytes / most : 0;
  const until = p.outbox.full
    ? "full"
    : hours == null
      ? filling(p.outbox.history)
      : untilFull(hours);
  return [
    h(
      "p",
      { class: "sentence" },
      h("strong", {}, size(bytes)),
      most ? ` of ${size(most)}, ${percent(share)}` : "",
      `; ${until}`,
    ),
    most
      ? h(
          "div",
          {
            class: `meter ${share >= 0.9 ? "bad" : share >= 0.8 ? "warn" : ""}`,
            role: "meter",
            "aria-label": "Outbox",
            "aria-valuemin": "0",
            "aria-valuemax": "100",
            "aria-valuenow": String(Math.min(100, Math.floor(share * 100))),
            "--share": share.toFixed(4),
          },
          h("span", {}),
        )
      : null,
  ];
}

/** The pace is measured over a minute; before, it is not known. */
const filling = (history) =>
  history.length && history.at(-1)[0] - history[0][0] > 90
    ? "not filling"
    : "too early to say how fast it fills";

/** The chart below it; lives as long as the page and is given new points. */
export class Course {
  #host;
  #plot = null;
  #drawn = null;

  constructor(host) {
    this.#host = host;
    new ResizeObserver(() => this.#resize()).observe(host);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#forget());
  }

  /** history: [unix seconds, bytes, waiting rows] */
  show(history) {
    if (history.length < 2 || !window.uPlot) {
      this.#forget();
      const why = window.uPlot
        ? "The course of the outbox appears here within seconds."
        : "No chart: its library is not installed.";
      patch(this.#host, h("p", { class: "empty" }, why));
      return;
    }
    const last = history.at(-1);
    const drawn = `${history.length} ${last}`;
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    const data = [0, 1, 2].map((n) => history.map((point) => point[n]));
    if (this.#plot) this.#plot.setData(data);
    else this.#make(data);
    this.#label(history);
  }

  #make(data) {
    patch(this.#host, []);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: colour("--soft"),
      grid: { stroke: colour("--grid"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    this.#plot = new window.uPlot(
      {
        width: this.#width(),
        height: HEIGHT,
        padding: [8, 6, 0, 0],
        cursor: { points: { size: 7 }, drag: { x: false, y: false } },
        scales: {
          bytes: { range: (_, __, high) => [0, Math.max(high * 1.1, 1024)] },
          rows: { range: (_, __, high) => [0, Math.max(high * 1.1, 10)] },
        },
        axes: [
          { ...axis, space: 80, size: 36, gap: 8, values: (_, all) => hours(all) },
          {
            ...axis,
            scale: "bytes",
            size: 66,
            incrs: STEPS,
            values: (_, all) => all.map((n) => size(n)),
          },
          {
            ...axis,
            scale: "rows",
            side: 1,
            size: 62,
            grid: { show: false },
            values: (_, all) => amounts(all),
          },
        ],
        series: [
          { label: "Time", value: told(hour) },
          {
            label: "On disk",
            scale: "bytes",
            stroke: colour("--line"),
            fill: colour("--fill"),
            width: 2,
            points: { show: false },
            value: told(size),
          },
          {
            label: "Rows waiting",
            scale: "rows",
            stroke: colour("--second"),
            width: 2,
            dash: [5, 4],
            points: { show: false },
            value: told(count),
          },
        ],
      },
      data,
      this.#host,
    );
  }

  #label(history) {
    const most = Math.max(...history.map((point) => point[1]));
    const span = duration(history.at(-1)[0] - history[0][0]);
    this.#host.setAttribute("role", "img");
    this.#host.setAttribute(
      "aria-label",
      `Course of the outbox over ${span}: now ${size(history.at(-1)[1])} with ${count(history.at(-1)[2])} rows waiting, at most ${size(most)}`,
    );
  }

  #width() {
    return Math.max(200, this.#host.clientWidth);
  }

  #resize() {
    if (this.#plot && this.#plot.width !== this.#width()) {
      this.#plot.setSize({ width: this.#width(), height: HEIGHT });
    }
  }

  #forget() {
    this.#plot?.destroy();
    this.#plot = this.#drawn = null;
    this.#host.removeAttribute("role");
    this.#host.removeAttribute("aria-label");
  }
}

/** What the legend says: the point below the cursor, else the newest. */
const told = (words) => (plot, n, series) => words(n ?? plot.data[series].at(-1));

function hour(seconds, exact = true) {
  const at = new Date(seconds * 1000);
  const parts = [at.getHours(), at.getMinutes(), ...(exact ? [at.getSeconds()] : [])];
  return parts.map((part) => String(part).padStart(2, "0")).join(":");
}

/** Times along an axis: all with seconds, or none. */
export const hours = (all) => all.map((time) => hour(time, all.some((each) => each % 60)));

/** Numbers along an axis: all in the unit of the largest. */
export function amounts(all) {
  const most = Math.max(...all);
  const [unit, word] = most >= 1e6 ? [1e6, " M"] : most >= 1e4 ? [1e3, " k"] : [1, ""];
  return all.map((n) => (n ? `${(n / unit).toLocaleString("en")}${word}` : "0"));
}
