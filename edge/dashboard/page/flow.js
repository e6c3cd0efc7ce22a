// The pipeline as a diagram: every stage, and on every arrow rows a second and rows so far.

import { h } from "./dom.js";
import { count, rate, rows, size } from "./format.js";

const SHOWN = new Set(["in", "out", "read", "taken", "appended", "delivered", "buffered"]);

/** The common stages in a row, then one lane for every sink. */
export function flow(p) {
  const common = p.flow.stages.filter((stage) => stage.sink == null);
  const sinks = [
    ...new Set(p.flow.stages.map((stage) => stage.sink).filter((sink) => sink != null)),
  ];
  const into = new Map(p.flow.arrows.map((arrow) => [arrow.to, arrow]));
  const from = common.at(-1)?.id;
  return h(
    "div",
    { class: "flow", tabindex: "0", role: "region", "aria-label": "Diagram of the flow" },
    h(
      "ol",
      { class: "common" },
      common.map((each, n) => stage(p, each, n ? into.get(each.id) : null)),
    ),
    h(
      "ul",
      { class: `lanes ${sinks.length > 1 ? "many" : ""}` },
      sinks.map((sink) =>
        h(
          "li",
          { key: sink },
          h(
            "ol",
            { class: "lane", "aria-label": `To ${sink}` },
            p.flow.stages
              .filter((each) => each.sink === sink)
              .map((each) => stage(p, each, into.get(each.id), from)),
          ),
        ),
      ),
    ),
  );
}

function stage(p, each, arrow, from) {
  const end = each.id.startsWith("sink:");
  const name = end ? each.sink : each.id === "source" ? "source" : each.id.split("/").pop();
  return h(
    "li",
    { key: each.id },
    arrow ? arrowOf(arrow, from) : null,
    end ? buffer(p.sinks[each.sink]) : null,
    end
      ? h(
          "div",
          { class: "arrow" },
          h("span", { class: "pace" }, `${rate(each.rows_per_second)}/s`),
          h("span", { class: "line", "aria-hidden": "true" }),
          h("span", { class: "total" }, rows(each.counters.delivered ?? 0)),
        )
      : null,
    h(
      "div",
      { class: `stage ${end ? "end" : ""} ${each.problem ? "troubled" : ""}` },
      h("span", { class: "name" }, name),
      name === each.kind ? null : h("span", { class: "kind" }, each.kind),
      details(each).map((text) =>
        h("span", { key: text.replace(/[\d,.]+/, ""), class: "detail" }, text),
      ),
      each.problem
        ? h("span", { class: "detail trouble", title: each.problem }, short(each))
        : null,
    ),
  );
}

/** The problem in two words; the headline has the whole of it. */
function short(each) {
  if (!each.id.startsWith("sink:"))
    return each.problem.includes("connect") ? "not connected" : "has a problem";
  return each.problem === "rows were refused" ? "rows refused" : "link down";
}

function arrowOf(arrow, from) {
  const apart =
    from && arrow.from !== from && !arrow.from.includes("/") ? `from ${arrow.from}` : null;
  return h(
    "div",
    { class: "arrow" },
    h("span", { class: "pace" }, `${rate(arrow.rows_per_second)}/s`),
    h("span", { class: "line", "aria-hidden": "true" }),
    h("span", { class: "total" }, rows(arrow.rows)),
    apart ? h("span", { class: "total" }, apart) : null,
  );
}

/** What waits in the outbox before it goes. */
function buffer(sink) {
  if (!sink) return null;
  return h(
    "div",
    { class: `stage buffer ${sink.buffered_rows ? "holds" : ""}` },
    h("span", { class: "name" }, "outbox"),
    h("span", { class: "detail" }, `${count(sink.buffered_rows)} waiting`),
    sink.buffered_bytes ? h("span", { class: "detail" }, size(sink.buffered_bytes)) : null,
  );
}

/** What became of rows that did not go on, as "1,204 filtered". */
function details(each) {
  const found = Object.entries(each.counters)
    .filter(([name, number]) => number && !SHOWN.has(name))
    .map(([name, number]) => `${count(number)} ${name}`);
  if (each.id === "source") found.unshift(`${count(each.counters.taken)} taken`);
  else if ("in" in each.counters) found.unshift(`${count(each.counters.out)} kept`);
  return found;
}
