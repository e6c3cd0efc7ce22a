// Numbers, sizes, durations and times as people read them.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const FEW = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const VALUE = new Intl.NumberFormat("en", { maximumSignificantDigits: 7, useGrouping: false });
const NB = "\u00a0"; // a number and its unit stay on one line
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** 22,695 */
export const count = (number) => WHOLE.format(number ?? 0);

/** "1 row", "2,000 rows" */
export const rows = (number, word = "row") => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/** Rows a second: "0", "4.2", "1,250" */
export const rate = (number) => (number >= 100 ? count(number) : FEW.format(number ?? 0));

/** 13.2 MiB */
export function size(bytes) {
  if (bytes == null) return "unknown";
  let unit = 0;
  while (bytes >= 1024 && unit < UNITS.length - 1) [bytes, unit] = [bytes / 1024, unit + 1];
  return `${unit ? FEW.format(bytes) : bytes}${NB}${UNITS[unit]}`;
}

/** 0.87 -> "87 %" */
export const percent = (share) =>
  `${share > 0 && share < 0.01 ? "<1" : Math.floor(share * 100)}${NB}%`;

/** A time that passes: "12 s", "4 min", "3 h 20 min", "2 d 4 h" */
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return `${s}${NB}s`;
  const min = Math.floor(s / 60);
  if (min < 120) return `${min}${NB}min`;
  const hours = Math.floor(min / 60);
  if (hours < 48) return `${hours}${NB}h${min % 60 ? `${NB}${min % 60}${NB}min` : ""}`;
  return `${Math.floor(hours / 24)}${NB}d${hours % 24 ? `${NB}${hours % 24}${NB}h` : ""}`;
}

/** A time that something took: "0.8 ms", "120 ms", "2.5 s" */
export function latency(seconds) {
  if (seconds == null) return "–";
  if (seconds < 1) return `${FEW.format(seconds * 1000)}${NB}ms`;
  return seconds < 100 ? `${FEW.format(seconds)}${NB}s` : duration(seconds);
}

const two = (number) => String(number).padStart(2, "0");

/** Unix seconds as local time of day, with the date when it is not today. */
export function clock(seconds, now) {
  const at = new Date(seconds * 1000);
  const today = new Date(now * 1000).toDateString() === at.toDateString();
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} `;
  return `${today ? "" : day}${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Unix seconds as "13:41:07, 4 min ago" */
export const since = (seconds, now) => `${clock(seconds, now)}, ${duration(now - seconds)} ago`;

/** One value of a row. */
export function value(found) {
  if (found == null) return "–";
  if (typeof found === "number") return VALUE.format(found);
  return typeof found === "object" ? JSON.stringify(found) : String(found);
}

/** "a", "a and b", "a, b and c" */
export function list(words) {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** "full in 3 h 20 min"; the hours come rounded to hundredths. */
export const untilFull = (hours) =>
  hours < 0.02 ? "full within a minute" : `full in ${duration(hours * 3600)}`;
