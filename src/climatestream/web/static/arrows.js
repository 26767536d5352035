// @ts-check
/** Arrows that fly with the wind, as many as the eye can tell apart, where the field is drawn. */

/** @typedef {import("./wire.js").Field} Field */
/** @typedef {import("./view.js").View} View */

const APART = 30; // pixels between two arrows at least
const SHORTEST = 9;
const PIXELS_A_METRE = 2.2; // length of an arrow by the wind's speed [pixels / (m/s)]

/**
 * @param {View} view
 * @param {Field} field
 * @param {Field | null} before the field before, on the same grid
 * @param {number} share from the one before, 0, to this one, 1
 * @param {Uint8Array | null} within 1 for the cells that may have one; null: all may
 * @returns {Path2D}
 */
export function arrows(view, field, before, share, within) {
  const path = new Path2D();
  const { grid, u, v } = field;
  if (!u || !v) return path;
  const from = before?.u && before.v && before.grid === grid && share < 1 ? before : null;
  const everyRow = Math.ceil(APART / (grid.step_lat * view.scale));
  const everyColumn = Math.ceil(APART / (grid.step_lon * view.scale * view.squeeze));
  const box = view.box();
  const longest = Math.min(
    everyRow * grid.step_lat * view.scale,
    everyColumn * grid.step_lon * view.scale * view.squeeze,
  );
  const most = Math.min(longest * 0.95, 46);
  for (const turn of [-360, 0, 360]) {
    const first = (box.west - turn - grid.west) / grid.step_lon;
    const last = (box.east - turn - grid.west) / grid.step_lon;
    if (last < 0 || first > grid.columns) continue;
    const rows = span((box.south - grid.south) / grid.step_lat, (box.north - grid.south) / grid.step_lat, grid.rows, everyRow);
    const columns = span(first, last, grid.columns, everyColumn);
    for (let row = rows[0]; row < rows[1]; row += everyRow) {
      const y = view.y(grid.south + row * grid.step_lat);
      for (let column = columns[0]; column < columns[1]; column += everyColumn) {
        const place = row * grid.columns + column;
        if (within && !within[place]) continue;
        let east = u[place];
        let north = v[place];
        if (east !== east || north !== north) continue;
        if (from) {
          const e = /** @type {Float32Array} */ (from.u)[place];
          const n = /** @type {Float32Array} */ (from.v)[place];
          if (e === e && n === n) {
            east = e + (east - e) * share;
            north = n + (north - n) * share;
          }
        }
        const speed = Math.hypot(east, north);
        if (speed < 0.05) continue;
        const length = Math.min(SHORTEST + speed * PIXELS_A_METRE, most);
        const dx = (east / speed) * length;
        const dy = (-north / speed) * length;
        const x = view.x(grid.west + turn + column * grid.step_lon);
        const tipX = x + dx / 2;
        const tipY = y + dy / 2;
        path.moveTo(x - dx / 2, y - dy / 2);
        path.lineTo(tipX, tipY);
        const head = Math.min(0.42, 5.5 / length);
        path.moveTo(tipX - head * (dx - 0.6 * dy), tipY - head * (dy + 0.6 * dx));
        path.lineTo(tipX, tipY);
        path.lineTo(tipX - head * (dx + 0.6 * dy), tipY - head * (dy - 0.6 * dx));
      }
    }
  }
  return path;
}

/**
 * The first and the end of the rows in sight, on the same ones wherever the view is.
 * @param {number} from
 * @param {number} to
 * @param {number} count
 * @param {number} every
 */
function span(from, to, count, every) {
  const offset = Math.floor(every / 2);
  const first = Math.max(Math.floor((from - offset) / every), 0) * every + offset;
  return [Math.min(first, count - 1), Math.min(Math.ceil(to) + 1, count)];
}
