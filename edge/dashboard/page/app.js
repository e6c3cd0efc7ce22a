// The page: hears states, keeps the model, and shows one pipeline of it.

import { diagnose } from "./diagnosis.js";
import { h, patch } from "./dom.js";
import { figures } from "./figures.js";
import { flow } from "./flow.js";
import { clock, duration } from "./format.js";
import { elsewhere, headline, silence } from "./headline.js";
import { equations, losses } from "./ledger.js";
import { Model } from "./model.js";
import { Newest } from "./newest.js";
import { Course, room } from "./outbox.js";
import { sinks } from "./sinks.js";
import { listen } from "./stream.js";

const GRACE = 2500; // milliseconds of a broken connection before the page says so in its headline

const at = (id) => document.getElementById(id);
const model = new Model();
const course = new Course(at("chart"));
const newest = new Newest(at("keys"), at("search"), at("found"));
const opened = Date.now();
const way = listen((state) => {
  model.take(state);
  draw();
});

const chosen = () => {
  const name = decodeURIComponent(location.hash.slice(1));
  return model.pipelines.get(name) ?? model.pipelines.values().next().value;
};

function draw() {
  const p = chosen();
  const now = model.now;
  const lost = !way.live && Date.now() - (way.last ?? opened) > GRACE;
  document.body.classList.toggle("away", lost);
  const others = [...model.pipelines.values()].filter((each) => each !== p);
  patch(at("headline"), [
    headline(p, now, lost ? silence(way, now) : null),
    elsewhere(others, now),
  ]);
  patch(at("connection"), contact(lost));
  speak(at("headline").querySelector(".what")?.textContent ?? "");
  if (!p) return;
  const { process } = model.state;
  at("body").hidden = false;
  title(p, process, now);
  tabs(p, now);
  patch(at("figures"), figures(p));
  patch(at("diagram"), flow(p));
  patch(at("room"), room(p));
  course.show(p.outbox.history);
  patch(at("sinks"), sinks(p, now, process.started));
  patch(at("equations"), equations(p));
  patch(at("losses"), losses(p, now));
  newest.show(p, now);
  patch(at("lines"), warnings(model.state.log, now));
  if (at("text").textContent !== (p.definition ?? "")) at("text").textContent = p.definition ?? "";
  at("definition").hidden = p.definition == null;
}

/** Read out the sentence when it says something else, not when only a number in it has changed. */
function speak(sentence) {
  const plain = (text) => text.replace(/\d/g, "");
  if (plain(at("spoken").textContent) !== plain(sentence)) at("spoken").textContent = sentence;
}

function title(p, process, now) {
  const worst = diagnose(p, now)[0]?.level;
  document.title = `${{ bad: "(!) ", warn: "(!) " }[worst] ?? ""}${p.pipeline}, edge`;
  patch(at("title"), [
    h("h1", {}, p.pipeline),
    h(
      "p",
      {},
      `site ${p.site}${p.replica === "0" ? "" : `, replica ${p.replica}`}, on ${process.host}, edge ${process.version}, runs for ${duration(now - process.started)}`,
    ),
  ]);
}

function tabs(p, now) {
  const all = [...model.pipelines.values()];
  at("pipelines").hidden = all.length < 2;
  patch(
    at("pipelines"),
    all.length < 2
      ? []
      : h(
          "ul",
          {},
          all.map((each) => {
            const level = diagnose(each, now)[0]?.level ?? "good";
            return h(
              "li",
              { key: each.pipeline },
              h(
                "a",
                {
                  href: `#${encodeURIComponent(each.pipeline)}`,
                  "aria-current": each === p ? "page" : null,
                },
                h("span", { class: `dot ${level}`, "aria-hidden": "true" }),
                each.pipeline,
                level === "bad" || level === "warn"
                  ? h("span", { class: "hidden" }, " has a problem")
                  : null,
              ),
            );
          }),
        ),
  );
}

function contact(lost) {
  if (way.live) return [h("span", { class: "dot good", "aria-hidden": "true" }), "live"];
  const words = way.last ? "connecting again …" : "connecting …";
  return [h("span", { class: `dot ${lost ? "bad" : ""}`, "aria-hidden": "true" }), words];
}

function warnings(lines, now) {
  if (!lines.length) return h("p", { class: "empty good" }, "None since the start.");
  return h(
    "ol",
    { class: "lines", tabindex: "0", "aria-label": "Lines of the log" },
    [...lines]
      .reverse()
      .map((line) =>
        h(
          "li",
          { key: `${line.at} ${line.message}` },
          h("span", { class: "time" }, clock(line.at, now)),
          " ",
          h("span", { class: `word ${line.level === "warning" ? "warn" : "down"}` }, line.level),
          " ",
          line.message,
        ),
      ),
  );
}

addEventListener("hashchange", draw);
setInterval(draw, 1000); // what only grows older
draw();
