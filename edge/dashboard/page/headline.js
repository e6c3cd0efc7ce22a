// The top of the page: in one sentence what is wrong, since when, what is lost, what to do.

import { diagnose, well } from "./diagnosis.js";
import { h } from "./dom.js";
import { clock, duration, since } from "./format.js";

const WORDS = { bad: "Problem", warn: "Attention", info: "Note", good: "Well", away: "No contact" };
const MARKS = {
  bad: "M8 3v6M8 12v.5",
  warn: "M8 3v6M8 12v.5",
  info: "M8 4v.5M8 7v5.5",
  good: "M3.5 8.5l3 3 6-7",
  away: "M3 3l10 10M13 3L3 13",
};

/** p may be undefined while nothing has been heard; away: since when nothing is heard, or null. */
export function headline(p, now, away) {
  if (away) return [card("away", away), ...(p ? also(diagnose(p, now), now) : [])];
  if (!p) return h("p", { class: "wait" }, "Waiting for the processor …");
  const [worst, ...rest] = diagnose(p, now);
  if (!worst) return [card("good", { ...well(p) })];
  return [card(worst.level, told(worst, now)), ...also(rest, now)];
}

const told = (problem, now) => ({
  ...problem,
  since: Number.isFinite(problem.since) && problem.since ? since(problem.since, now) : null,
});

function card(level, problem) {
  const why = [problem.why ?? []].flat();
  const rows = [
    ["Since", problem.since],
    ["Is data lost?", problem.lost],
    ["What to do", problem.todo],
    [why.length > 1 ? "The reasons given" : "The reason given", why.join("; ")],
  ].filter(([, text]) => text);
  return h(
    "div",
    { key: level + (problem.id ?? ""), class: `card ${level}` },
    h(
      "p",
      { class: "what" },
      mark(level),
      h("span", { class: "hidden" }, `${WORDS[level]}: `),
      h("strong", {}, code(problem.what)),
    ),
    h(
      "dl",
      {},
      rows.map(([name, text]) =>
        h(
          "div",
          { key: name, class: name.startsWith("The reason") ? "why" : "" },
          h("dt", {}, name),
          h("dd", {}, code(text)),
        ),
      ),
    ),
  );
}

function also(problems, now) {
  if (!problems.length) return [];
  return [
    h(
      "details",
      { key: "also", class: "also" },
      h("summary", {}, `Also: ${problems.map((p) => p.what).join(" ")}`),
      problems.map((p) => card(p.level, told(p, now))),
    ),
  ];
}

/** What is wrong with the pipelines that are not shown. */
export function elsewhere(pipelines, now) {
  return pipelines.flatMap((p) => {
    const worst = diagnose(p, now)[0];
    if (!worst || worst.level === "info") return [];
    return h(
      "p",
      { key: `of ${p.pipeline}`, class: "also" },
      h("a", { href: `#${encodeURIComponent(p.pipeline)}` }, p.pipeline),
      `: ${worst.what}`,
    );
  });
}

/** `text` in backquotes is what can be typed. */
const code = (text) => text.split("`").map((part, n) => (n % 2 ? h("code", {}, part) : part));

export const mark = (level) =>
  h(
    "svg",
    { class: `mark ${level}`, viewBox: "0 0 16 16", "aria-hidden": "true" },
    h("path", { d: MARKS[level] }),
  );

/** When nothing is heard from the processor. */
export function silence(way, now) {
  const seconds = way.last ? (Date.now() - way.last) / 1000 : null;
  return {
    id: "away",
    what: way.refused
      ? "The processor answers, but does not let this page look."
      : "The processor does not answer.",
    since:
      seconds == null
        ? null
        : `${clock(now - seconds, now)}, ${duration(seconds)} ago. Below is how it stood then.`,
    lost: "Nothing that it had acknowledged: that is on its disk. The page cannot tell more.",
    todo: way.refused
      ? "Open the address with its token again, or wait until others look no longer."
      : "See whether it runs (`edge status`, its service or container) and the network to it. The page goes on by itself.",
  };
}
