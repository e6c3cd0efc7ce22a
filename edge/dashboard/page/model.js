// What the page knows: the last state, and the rows that came with it and with those before.

const MOST = 5000; // keys, as the processor keeps them
const POINTS = 30; // of a line, as the processor keeps them

/** Keeps one entry per pipeline; states after the first bring what is new of rows and lines. */
export class Model {
  constructor() {
    this.state = null;
    this.offset = 0; // seconds that the processor's clock is ahead of the browser's
    this.pipelines = new Map();
  }

  /** The processor's time, unix seconds: it is its clock that all times of a state are told in. */
  get now() {
    return Date.now() / 1000 + this.offset;
  }

  take(state) {
    this.offset = state.process.now - Date.now() / 1000;
    this.state = state;
    const names = new Set(state.pipelines.map((p) => p.pipeline));
    for (const name of this.pipelines.keys()) if (!names.has(name)) this.pipelines.delete(name);
    for (const pipeline of state.pipelines) this.#take(pipeline, state.partial);
  }

  #take(pipeline, partial) {
    const before = partial ? this.pipelines.get(pipeline.pipeline) : undefined;
    const rows = before?.rows ?? new Map();
    const known = rows.size;
    for (const row of pipeline.newest.rows) {
      const name = row.key.map((part) => part ?? "–").join(" / ");
      rows.set(name, {
        ...row,
        name,
        spark: [...(rows.get(name)?.spark ?? []), ...row.spark].slice(-POINTS),
        text: `${name} ${Object.values(row.values).join(" ")}`.toLowerCase(),
      });
    }
    const order = before && rows.size === known ? before.order : sorted(rows);
    const definition = pipeline.definition ?? before?.definition ?? null;
    this.pipelines.set(pipeline.pipeline, { ...pipeline, definition, rows, order });
  }
}

const COLLATOR = new Intl.Collator("en", { numeric: true });

/** Names by alphabet, of at most MOST keys: those heard of last. */
function sorted(rows) {
  if (rows.size > MOST) {
    const oldest = [...rows.values()].sort((a, b) => (a.received < b.received ? -1 : 1));
    for (const row of oldest.slice(0, rows.size - MOST)) rows.delete(row.name);
  }
  return [...rows.keys()].sort(COLLATOR.compare);
}
