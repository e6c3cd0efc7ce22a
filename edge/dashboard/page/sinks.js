// Every destination: how its link stood and stands, what waits, what was refused and why.

import { place } from "./diagnosis.js";
import { h } from "./dom.js";
import { clock, count, duration, rows, size } from "./format.js";

const SHOWN = 6; // changes of a link that are listed

export function sinks(p, now, started) {
  const names = Object.keys(p.links);
  if (!names.length) return h("p", { class: "empty" }, "This pipeline has no sinks.");
  return names.map((name) => sink(p, name, p.links[name], p.sinks[name], now, started));
}

function sink(p, name, link, stands, now, started) {
  const facts = [
    ["Delivered", rows(stands?.delivered_rows ?? 0)],
    [
      "Waiting",
      stands?.buffered_rows
        ? `${rows(stands.buffered_rows)}, ${size(stands.buffered_bytes)}`
        : "nothing",
    ],
    ["Oldest waits for", stands?.oldest_seconds == null ? null : duration(stands.oldest_seconds)],
    [
      "Last delivery",
      link.last_delivery ? `${duration(now - link.last_delivery)} ago` : "none since the start",
    ],
    ["Tries that failed", link.retries ? count(link.retries) : null],
    ["Next try", link.state === "down" && link.next_try ? next(link.next_try - now) : null],
  ].filter(([, text]) => text != null);
  return h(
    "article",
    { key: name, class: "sink", "aria-label": name },
    h("h3", {}, place(p, name), " ", state(link, now)),
    timeline(link, now, started),
    link.why ? h("p", { class: "reason" }, link.why) : null,
    h(
      "dl",
      { class: "facts" },
      facts.map(([term, text]) => h("div", { key: term }, h("dt", {}, term), h("dd", {}, text))),
    ),
    refused(stands, now),
    changes(link, now),
  );
}

const next = (seconds) => (seconds < 1 ? "now" : `in ${duration(seconds)}`);

function state(link, now) {
  const words = { up: "up", down: "down", "not tried": "not tried yet" }[link.state] ?? link.state;
  const since =
    link.since && link.state !== "not tried" ? ` for ${duration(now - link.since)}` : "";
  return h(
    "span",
    { class: `badge ${link.state === "up" ? "good" : link.state === "down" ? "bad" : ""}` },
    words + since,
  );
}

/** Stretches of up and down as a band, from the first change known, or the start, until now. */
function timeline(link, now, started) {
  const stretches = stretch(link, now, started);
  const begin = stretches[0].from;
  const whole = Math.max(1, now - begin);
  const shut = stretches
    .filter((each) => each.state === "down")
    .reduce((sum, each) => sum + each.to - each.from, 0);
  const words = `The last ${duration(now - begin)}: ${shut ? `down for ${duration(shut)}` : "never down"}`;
  return h(
    "div",
    { class: "timeline" },
    h(
      "div",
      { class: "band", role: "img", "aria-label": words },
      stretches.map((each, n) =>
        h("span", {
          key: n,
          class: `stretch ${each.state === "not tried" ? "unknown" : each.state}`,
          "--width": ((each.to - each.from) / whole).toFixed(4),
          title: `${each.state} from ${clock(each.from, now)}${each.why ? `: ${each.why}` : ""}`,
        }),
      ),
    ),
    h(
      "div",
      { class: "ends", "aria-hidden": "true" },
      h("span", {}, clock(begin, now)),
      h("span", {}, "now"),
    ),
  );
}

function stretch(link, now, started) {
  const merged = [];
  for (const change of link.timeline) {
    if (merged.at(-1)?.state !== change.state) merged.push({ ...change, from: change.at });
  }
  if (!merged.length)
    merged.push({
      state: link.state,
      from: Math.max(started, link.since ?? started),
      why: link.why,
    });
  return merged.map((each, n) => ({ ...each, to: merged[n + 1]?.from ?? now }));
}

function refused(stands, now) {
  const lines = stands?.refused ?? [];
  if (!lines.length) return null;
  return h(
    "div",
    { class: "refused" },
    h("h4", {}, "Refused by the destination"),
    h(
      "ul",
      {},
      lines
        .slice(0, 5)
        .map((each) =>
          h(
            "li",
            { key: each.reason },
            `${rows(each.rows)}, last ${clock(each.last, now)}: ${each.reason}`,
          ),
        ),
    ),
  );
}

function changes(link, now) {
  const last = link.timeline.slice(-SHOWN).reverse();
  if (last.length < 2) return null;
  return h(
    "details",
    { key: "changes" },
    h("summary", {}, `Changes of the link (${link.timeline.length})`),
    h(
      "ol",
      { class: "changes" },
      last.map((each) =>
        h(
          "li",
          { key: each.at },
          h("span", { class: "time" }, clock(each.at, now)),
          " ",
          h("span", { class: `word ${each.state}` }, each.state),
          each.why ? ` ${each.why}` : "",
        ),
      ),
    ),
  );
}
