// The numbers that somebody who knows the pipeline looks at first.

import { h } from "./dom.js";
import { count, duration, latency, rate } from "./format.js";

export function figures(p) {
  const sinks = Object.values(p.sinks);
  const waiting = sinks.reduce((sum, sink) => sum + sink.buffered_rows, 0);
  const oldest = Math.max(-1, ...sinks.map((sink) => sink.oldest_seconds ?? -1));
  const read = p.ledger.find((line) => line.part === "source")?.left.read ?? 0;
  const { durable, delivered } = p.latency;
  return h(
    "dl",
    { class: "figures" },
    [
      ["Coming in", `${rate(p.flow.stages[0]?.rows_per_second ?? 0)}`, "rows a second"],
      ["Read so far", count(read), "rows"],
      [
        "Waiting",
        count(waiting),
        oldest < 0 ? "rows, none in the outbox" : `rows, the oldest for ${duration(oldest)}`,
      ],
      [
        "Safe on disk after",
        latency(durable.p50),
        durable.count ? `99 of 100 within ${latency(durable.p99)}` : "none in the last minutes",
      ],
      [
        "Delivered after",
        latency(delivered.p50),
        delivered.count ? `99 of 100 within ${latency(delivered.p99)}` : "none in the last minutes",
      ],
    ].map(([name, number, more]) =>
      h(
        "div",
        { key: name, class: "figure" },
        h("dt", {}, name),
        h("dd", {}, h("span", { class: "number" }, number), h("span", { class: "more" }, more)),
      ),
    ),
  );
}
