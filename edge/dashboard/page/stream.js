// Hears the states that the processor sends once a second, and knows when it hears nothing.

const SILENT = 4000; // milliseconds without a state after which what is shown counts as old
const AGAIN = 1000;

/** Calls `told(state)` for each state, and `heard(at)` when the way to the processor changes. */
export function listen(told) {
  const way = { live: false, last: null, refused: false };
  let source = null;

  function open() {
    source?.close();
    source = new EventSource("/events");
    source.addEventListener("state", (event) => {
      way.live = true;
      way.refused = false;
      way.last = Date.now();
      told(JSON.parse(event.data));
    });
    // The browser tries again by itself, and goes on after the last id, unless it was turned away.
    source.onerror = () => {
      way.live = false;
      if (source.readyState === EventSource.CLOSED) {
        way.refused = true;
        setTimeout(open, 2 * AGAIN);
      }
    };
  }

  open();
  // A connection that hangs raises no error: nothing heard for long means it is opened anew.
  setInterval(() => {
    if (!way.last || Date.now() - way.last < SILENT) return;
    way.live = false;
    if (Date.now() - Math.max(way.last, way.opened ?? 0) > 3 * SILENT) {
      way.opened = Date.now();
      open();
    }
  }, AGAIN);
  return way;
}
