// What is wrong with a pipeline, in the words of somebody who explains it: what, since when,
// whether data is lost, what to do. The worst first.

import { count, duration, list, percent, rows, size, untilFull } from "./format.js";

const RECENT = 300; // seconds after which a loss is history
const UNSEEN = 15; // seconds after which a disk that does not answer hangs
const NEARLY_FULL = 0.8;
const SOON = 6; // hours until full from which on it is said

const PLACES = { s3: "S3", sqs: "SQS", mqtt: "MQTT", file: "files", console: "screen" };
const RANK = { bad: 0, warn: 1, info: 2 };

/** A list of {level: bad | warn | info, id, what, since, lost, todo, why}; empty: all is well. */
export function diagnose(p, now) {
  const found = [
    unwell,
    unbalanced,
    disk,
    room,
    source,
    missing,
    shut,
    unreadable,
    failed,
    lost,
    refused,
  ].flatMap((look) => look(p, now) ?? []);
  return found.sort((a, b) => RANK[a.level] - RANK[b.level]);
}

/** What a sink is called: "lake (S3)". */
export function place(p, sink) {
  const kind = p.flow.stages.find((stage) => stage.id === `sink:${sink}`)?.kind;
  return kind ? `${sink} (${PLACES[kind] ?? kind})` : sink;
}

const down = (p) => Object.entries(p.links).filter(([, link]) => link.state === "down");
const waiting = (p) => Object.values(p.sinks).reduce((sum, sink) => sum + sink.buffered_rows, 0);
const share = (p) => (p.outbox.max_bytes ? (p.outbox.bytes ?? 0) / p.outbox.max_bytes : 0);
const dot = (text) => (/\?$/.test(text) ? text : text.replace(/[\s.]*$/, "."));

function unwell(p) {
  if (p.running && p.healthy) return null;
  const what = p.running
    ? `It has made no progress for ${duration(p.silence)}.`
    : "The pipeline is not running: it is starting, or another process owns its outbox.";
  return {
    level: "bad",
    id: "unwell",
    what,
    since: null,
    lost: "No. What it has acknowledged is on disk, what it has not is sent to it again.",
    todo: "Look at the last lines of its log. If it stays so, restart it: that is always safe.",
  };
}

function unbalanced(p) {
  const wrong = p.ledger.filter((line) => !line.balanced);
  if (!wrong.length) return null;
  return {
    level: "bad",
    id: "unbalanced",
    since: null,
    what: `The accounts do not balance at ${list(wrong.map((line) => line.part))}.`,
    lost: "Perhaps. Rows went somewhere that the ledger does not know.",
    todo: "Run `edge outbox verify` on the definition, keep a copy of the outbox folder, report it.",
  };
}

function missing(p) {
  if (!p.waits_for) return null;
  return {
    level: "bad",
    id: "missing",
    since: null,
    what: `A file that an operator needs is not there: ${dot(p.waits_for)}`,
    lost: "Not here: no row is taken until it is. The source must keep what comes meanwhile.",
    todo: "Mount, copy or mend the file; it goes on by itself. What waits for sinks goes out.",
  };
}

function disk(p, now) {
  const unseen = p.running && p.seen != null ? now - p.seen : 0;
  const problem =
    p.outbox.disk_problem ??
    (unseen > UNSEEN ? `it has not answered for ${duration(unseen)}` : null);
  if (!problem) return null;
  return {
    level: "bad",
    id: "disk",
    since: null,
    what: `The disk has a problem: ${dot(problem)}`,
    lost: "Not what is committed. New rows wait where they come from until the disk takes them.",
    todo: "Free or mend the disk that holds the outbox; it goes on by itself.",
  };
}

function room(p, now) {
  const used = share(p);
  const hours = p.outbox.hours_until_full;
  const soon = hours != null && hours < SOON && used > 0.3;
  if (used < NEARLY_FULL && !soon && !p.outbox.full) return null;
  const full = p.outbox.full;
  const shut = down(p);
  const because = shut.length ? `, because nothing gets through to ${names(p, shut)}` : "";
  const left = !full && hours != null ? ` At this pace it is ${untilFull(hours)}.` : "";
  const amount = `${percent(used)} of ${size(p.outbox.max_bytes)}`;
  return {
    level: full || used >= 0.9 ? "bad" : "warn",
    id: "room",
    since: passed(p, now),
    what: full
      ? `The outbox is full (${amount})${because}.`
      : `The outbox is nearly full (${amount})${because}.${left}`,
    lost: whenFull(p, full),
    todo:
      (shut.length
        ? `${advice(shut[0][1].why)} Or give `
        : "Find out why rows leave more slowly than they come, or give ") +
      "it more room: raise `outbox.max_size` in the definition and restart the processor.",
  };
}

function whenFull(p, full) {
  if (p.outbox.when_full === "block") {
    return full
      ? "Not here: nothing more is read until there is room. The source must keep what comes meanwhile; a broker drops once its own queue is full."
      : "No. When it is full nothing more is read, and the source must keep what comes: a broker drops once its own queue is full.";
  }
  const which = p.outbox.when_full === "drop_newest" ? "newest" : "oldest";
  return full
    ? `Yes. The ${which} rows are dropped, as the definition says; the list below counts them.`
    : `Not yet. When it is full the ${which} rows are dropped, as the definition says.`;
}

/** When the outbox passed the mark for good, as far as the record goes back. */
function passed(p, now) {
  const mark = NEARLY_FULL * p.outbox.max_bytes;
  let at = null;
  for (const [time, bytes] of p.outbox.history) at = bytes < mark ? null : (at ?? time);
  return at ?? now;
}

function source(p) {
  if (p.source.connected !== false && !p.source.problem) return null;
  if (!p.running) return null;
  const away = p.source.connected === false;
  const url = p.source.url ?? "the source";
  const why = p.source.problem ?? "";
  const mqtt = p.flow.stages[0]?.kind === "mqtt";
  return {
    level: "bad",
    id: "source",
    since: away ? p.source.since : null,
    what: away
      ? `Nothing comes in: no connection to ${url}.`
      : dot(`The source has a problem: ${why}`),
    why: away ? why.replace(`${url}: `, "") : null,
    lost: mqtt
      ? "Not if the broker keeps messages for a client that is away (QoS 1 and a queue without limit); it sends them when the connection is back."
      : "No. What is not read stays where it is.",
    todo: "Check that it runs, its address, and the network between; the connection is tried again by itself.",
  };
}

function shut(p) {
  const links = down(p);
  if (!links.length) return null;
  const kept = links.reduce((sum, [name]) => sum + (p.sinks[name]?.buffered_rows ?? 0), 0);
  const hours = p.outbox.hours_until_full;
  const left =
    hours > 0
      ? ` At this pace there is room for ${duration(hours * 3600)} more.`
      : p.outbox.max_bytes
        ? ` The outbox is ${percent(share(p))} full.`
        : "";
  return {
    level: "bad",
    id: "shut",
    since: Math.min(...links.map(([, link]) => link.since ?? Infinity)),
    what: `Nothing gets through to ${names(p, links)}.`,
    why: links[0][1].why,
    lost: `No. ${rows(kept)} ${kept === 1 ? "waits" : "wait"} on this machine's disk.${left}`,
    todo: `${advice(links[0][1].why)} Rows then go by themselves.`,
  };
}

const names = (p, links) => list(links.map(([name]) => place(p, name)));

/** What somebody beside the machine can do about a link that is down. */
function advice(why) {
  const text = why ?? "";
  if (/AccessDenied|Forbidden|not authori[sz]ed|\b403\b/i.test(text)) {
    return "Allow it: the credentials of this machine lack the right that the reason names.";
  }
  if (
    /credential|ExpiredToken|InvalidClientToken|InvalidAccessKey|SignatureDoesNotMatch|RequestTimeTooSkewed/i.test(
      text,
    )
  ) {
    return "Check the credentials of this machine, and its clock.";
  }
  if (/NoSuchBucket|NonExistentQueue|QueueDoesNotExist|does not exist/i.test(text)) {
    return "Create what is missing there, or correct its name in the definition.";
  }
  if (/certificate|\bssl\b|\btls\b/i.test(text)) {
    return "Check the clock of this machine and the certificates.";
  }
  if (/no space|read-only|permission denied/i.test(text))
    return "Check the disk and the folder's owner.";
  return "Check the network of this machine: cable, router, firewall.";
}

function unreadable(p, now) {
  const lines = recent(p, now, (loss) => loss.kind === "rejected");
  if (!lines.length) return null;
  const causes = p.rejects.filter((each) => each.last > now - RECENT);
  const mqtt = p.flow.stages[0]?.kind === "mqtt";
  const topics = [...new Set(causes.map((each) => origin(each, mqtt)).filter(Boolean))];
  const number = lines.reduce((sum, loss) => sum + loss.rows, 0);
  const one = mqtt && topics.length === 1;
  const who =
    topics.length > 1
      ? `${topics.length} ${mqtt ? "topics" : "places"}, last of all ${topics[0]}`
      : (topics[0] ?? "the source");
  const why = [...new Set(lines.map((loss) => loss.reason))].sort();
  const because = why.length === 1 ? `: ${why[0]}` : "";
  return {
    level: "warn",
    id: "unreadable",
    since: Math.min(...lines.map((loss) => loss.first_time)),
    what: one
      ? `The device behind ${who} sends what cannot be read${dot(because)}`
      : `What comes from ${who} cannot be read${dot(because)}`,
    why: why.length > 1 ? why : null,
    lost: `Yes, from ${one ? "this device" : "there"}: ${rows(number, "message")} gave no rows. The latest are kept as they came. Everything else goes on.`,
    todo: `${one ? "Look at that device: its firmware, its settings, its sensor." : "Look at what writes there, or correct \`record\` in the definition."} ${
      causes[0]?.sample ? `It last sent \`${shorten(causes[0].sample)}\`` : ""
    }`,
  };
}

/** The topic of a message; of a line of a file, the file. */
const origin = (each, mqtt) => (mqtt ? each.topic : each.topic?.replace(/:\d+$/, ""));

const shorten = (text) => {
  const flat = text.replace(/[\s`]+/g, " ").replace(/[^\x20-\x7e\u00a0-\uffff]/g, "·");
  return flat.length > 60 ? `${flat.slice(0, 60)}…` : flat;
};

function failed(p, now) {
  const lines = recent(p, now, (loss) => loss.kind === "failed");
  if (!lines.length) return null;
  return {
    level: "warn",
    id: "failed",
    since: Math.min(...lines.map((loss) => loss.first_time)),
    what: `Rows fail in an operator: ${dot(lines[0].reason)}`,
    lost: `Yes: ${rows(total(lines))}, set aside with the reason.`,
    todo: "Correct that operator in the definition; `edge outbox export` writes out the rows.",
  };
}

function lost(p, now) {
  const kinds = ["dropped", "damaged", "late", "thinned"];
  return kinds.flatMap((kind) => {
    const lines = recent(p, now, (loss) => loss.kind === kind);
    if (!lines.length) return [];
    const level = kind === "late" || kind === "thinned" ? "info" : "bad";
    return {
      level,
      id: kind,
      since: Math.min(...lines.map((loss) => loss.first_time)),
      what: dot(
        `${rows(total(lines))} ${total(lines) === 1 ? "was" : "were"} ${WORDS[kind]}: ${lines[0].reason}`,
      ),
      lost: `Yes: ${rows(total(lines))}. The list below has them with reason and time.`,
      todo: TODO[kind],
    };
  });
}

const WORDS = {
  dropped: "dropped",
  damaged: "damaged on disk",
  late: "too late for their window",
  thinned: "thinned out",
};
const TODO = {
  dropped: "Give the outbox more room (`outbox.max_size`), or the link more bandwidth.",
  damaged: "Check this machine's disk: what it gave back is not what was written.",
  late: "If such delays are normal here, raise `lateness` of that window.",
  thinned: "The definition wants it so; give the outbox more room if not.",
};

function refused(p) {
  return Object.entries(p.sinks).flatMap(([name, sink]) => {
    if (!sink.quarantined_rows) return [];
    const reason = sink.refused?.[0]?.reason;
    return {
      level: "warn",
      id: `refused ${name}`,
      since: null,
      what: dot(
        `${place(p, name)} refused ${rows(sink.quarantined_rows)}${reason ? `: ${reason}` : ""}`,
      ),
      lost: "Not yet. They are kept here, but are not tried again by themselves.",
      todo: `Mend the reason, then \`edge outbox retry\`; \`edge outbox export\` writes them out.`,
    };
  });
}

const recent = (p, now, wanted) =>
  p.losses.filter((loss) => wanted(loss) && loss.rows > 0 && loss.last_time > now - RECENT);
const total = (lines) => lines.reduce((sum, loss) => sum + loss.rows, 0);

/** What is said when nothing is wrong. */
export function well(p) {
  const source = p.ledger.find((line) => line.part === "source");
  const read = source?.left.read ?? 0;
  if (!read) return { what: "All is well. No row has come yet.", lost: "No." };
  const gone = p.losses.reduce((sum, loss) => sum + loss.rows, 0);
  const quiet = !p.flow.stages[0]?.rows_per_second;
  const left = waiting(p);
  return {
    what: quiet ? "All is well. Nothing comes in at the moment." : "All is well.",
    lost: gone
      ? `Not now. ${rows(gone)} in former times, listed below with the reasons.`
      : `No. Of ${rows(read)} read, every one is accounted for${left ? `; ${count(left)} on the way` : ""}.`,
  };
}
