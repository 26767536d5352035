// @ts-check
/** The map in hand: pointer, touch and keys. */

/** @typedef {import("./map.js").ClimateMap} ClimateMap */

const STEP = 60; // pixels that a key moves the map by
const STILL = 4; // pixels that a click may move

/** Drag, pinch, wheel, double click; rest to read, click to pick.
 * @param {ClimateMap} map */
export function pointers(map) {
  /** @type {Map<number, {x: number, y: number}>} */
  const down = new Map();
  let moved = 0;
  const at = (/** @type {MouseEvent} */ event) => {
    const box = map.stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const spread = () => {
    const [a, b] = [...down.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
  };
  map.stage.addEventListener("pointerdown", (event) => {
    if (event.button || event.target instanceof Element && event.target.closest("button")) return;
    map.stage.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(event));
    if (down.size === 1) moved = 0;
  });
  map.stage.addEventListener("pointermove", (event) => {
    const now = at(event);
    const before = down.get(event.pointerId);
    if (!before) {
      map.hover(now.x, now.y, false);
      return;
    }
    const two = down.size === 2 ? spread() : null;
    down.set(event.pointerId, now);
    if (two) {
      const next = spread();
      map.pan(next.x - two.x, next.y - two.y);
      map.zoom(next.apart / Math.max(two.apart, 1), next.x, next.y);
      moved = 100;
    } else if (down.size === 1) {
      moved += Math.abs(now.x - before.x) + Math.abs(now.y - before.y);
      if (moved > STILL) map.pan(now.x - before.x, now.y - before.y);
      map.stage.classList.toggle("dragged", moved > STILL);
    }
  });
  const up = (/** @type {PointerEvent} */ event) => {
    const last = down.get(event.pointerId);
    down.delete(event.pointerId);
    map.stage.classList.remove("dragged");
    if (last && moved <= STILL && event.type === "pointerup") {
      map.hover(last.x, last.y, false);
      map.pick(last.x, last.y);
    }
  };
  map.stage.addEventListener("pointerup", up);
  map.stage.addEventListener("pointercancel", up);
  map.stage.addEventListener("pointerleave", () => map.leave());
  map.stage.addEventListener("dblclick", (event) => {
    const { x, y } = at(event);
    map.zoom(event.shiftKey ? 0.5 : 2, x, y);
  });
  map.stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { x, y } = at(event);
      const lines = event.deltaMode === 1 ? 30 : 1;
      map.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0018)), x, y);
      map.hover(x, y, false);
    },
    { passive: false },
  );
}

/** What the keyboard does when the map has the focus: the cross in the middle is the pointer.
 * @param {ClimateMap} map */
export function keys(map) {
  /** @type {Record<string, () => void>} */
  const acts = {
    ArrowLeft: () => map.pan(STEP, 0),
    ArrowRight: () => map.pan(-STEP, 0),
    ArrowUp: () => map.pan(0, STEP),
    ArrowDown: () => map.pan(0, -STEP),
    "+": () => map.zoom(1.4),
    "=": () => map.zoom(1.4),
    "-": () => map.zoom(1 / 1.4),
    0: () => map.fit(),
    Home: () => map.fit(),
    Enter: () => map.pick(map.view.width / 2, map.view.height / 2),
    Escape: () => map.dispatchEvent(new CustomEvent("pick", { detail: null })),
  };
  map.stage.addEventListener("keydown", (event) => {
    if (event.target !== map.stage || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    map.keyed = true;
    act();
    map.hover(map.view.width / 2, map.view.height / 2, true);
  });
  map.stage.addEventListener("blur", () => {
    if (map.keyed) map.leave();
  });
}
