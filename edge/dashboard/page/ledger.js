// The accounts: for every part an equation that must hold, and what was lost or set aside.

import { h } from "./dom.js";
import { mark } from "./headline.js";
import { clock, count, rows } from "./format.js";

const SHOWN = 12; // lines of losses

export function equations(p) {
  const lines = p.ledger.filter((line) => Object.keys(line.left).length);
  if (!lines.length) return h("p", { class: "empty" }, "Nothing has been counted yet.");
  const wrong = lines.filter((line) => !line.balanced).length;
  return [
    h(
      "p",
      { class: "sentence" },
      wrong
        ? `${wrong} of ${lines.length} equations do not hold.`
        : "Every row that came in is in exactly one place: all equations hold.",
    ),
    h(
      "ul",
      { class: "equations" },
      lines.map((line) =>
        h(
          "li",
          { key: line.part, class: line.balanced ? "balanced" : "unbalanced" },
          mark(line.balanced ? "good" : "bad"),
          h("span", { class: "hidden" }, line.balanced ? "balances: " : "does not balance: "),
          h("span", { class: "part" }, line.part.replace("sink:", "to ")),
          h(
            "span",
            { class: "equation" },
            side(line.left),
            h("span", { class: "equals" }, line.balanced ? " = " : " ≠ "),
            side(line.right),
          ),
        ),
      ),
    ),
  ];
}

/** The terms of one side that are not zero; the first one always. */
function side(terms) {
  const shown = Object.entries(terms).filter(([, number], n) => number || n === 0);
  const told = shown.length > 1 && !shown[0][1] ? shown.slice(1) : shown;
  return told.map(([name, number], n) => [
    n ? " + " : "",
    h("span", { key: name, class: "term" }, h("b", {}, count(number)), ` ${name}`),
  ]);
}

export function losses(p, now) {
  const lines = p.losses.filter((loss) => loss.rows || loss.kind === "reset");
  if (!lines.length && !p.rejects.length) {
    return h("p", { class: "empty good" }, "Nothing. No row was ever lost or set aside here.");
  }
  return [
    h(
      "ul",
      { class: "losses" },
      lines
        .slice(0, SHOWN)
        .map((loss) =>
          h(
            "li",
            { key: `${loss.part} ${loss.kind} ${loss.reason} ${loss.first_time}` },
            h(
              "p",
              {},
              h("b", {}, `${count(loss.rows)} ${loss.kind}`),
              ` ${loss.part.startsWith("sink:") ? "on the way to" : "at"} ${loss.part.replace("sink:", "")}: ${loss.reason}`,
            ),
            h("p", { class: "time" }, span(loss, now)),
          ),
        ),
    ),
    lines.length > SHOWN
      ? h(
          "p",
          { class: "empty" },
          `and ${lines.length - SHOWN} older lines: \u201cedge outbox ledger\u201d has them all`,
        )
      : null,
    p.rejects.length ? rejected(p.rejects, now) : null,
  ];
}

function rejected(causes, now) {
  return h(
    "details",
    { key: "rejects" },
    h("summary", {}, "Messages that could not be read, as they came"),
    h(
      "ul",
      { class: "rejects" },
      causes
        .slice(0, 12)
        .map((each) =>
          h(
            "li",
            { key: `${each.topic} ${each.reason}` },
            h(
              "p",
              {},
              h("b", {}, each.topic ?? "no topic"),
              ` ${rows(each.rows, "message")} kept, last ${clock(each.last, now)}: ${each.reason}`,
            ),
            h(
              "pre",
              { tabindex: "0", "aria-label": `A message of ${each.topic ?? "no topic"}` },
              each.sample || "(empty)",
            ),
          ),
        ),
    ),
  );
}

function span(loss, now) {
  const [first, last] = [clock(loss.first_time, now), clock(loss.last_time, now)];
  return first === last ? first : `${first} to ${last}`;
}
