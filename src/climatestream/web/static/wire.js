// @ts-check
/** What comes over the wire, unpacked: fields in binary, the rest as JSON. */

/**
 * @typedef {object} Grid
 * @property {string} id
 * @property {number} n cells
 * @property {number} south centre of row 0 [degree]
 * @property {number} west centre of column 0 [degree]
 * @property {number} step_lat
 * @property {number} step_lon
 * @property {number} rows
 * @property {number} columns
 * @property {string[]} countries that a smooth field is clipped to
 * @property {Int32Array} place row * columns + column of each cell, rows from the south
 * @property {Int32Array} at cell of each place, -1 where there is none
 */

/**
 * @typedef {object} Field
 * @property {string} dataset
 * @property {string} variable
 * @property {number} time [ms]
 * @property {string} version
 * @property {number} cells
 * @property {number} low
 * @property {number} mean
 * @property {number} high
 * @property {boolean} empty whether no cell has a value
 * @property {boolean} part whether it is what lies in a box, on a grid of its own
 * @property {boolean} boxed whether the values are means of the cells in boxes
 * @property {Grid} grid
 * @property {Float32Array} values by place, in the unit shown, NaN where missing
 * @property {Float32Array | null} u by place [m/s]
 * @property {Float32Array | null} v by place [m/s]
 * @property {number} bytes on the wire
 */

/**
 * @typedef {object} Choice
 * @property {string} name
 * @property {string} label
 * @property {string} unit
 * @property {number} factor
 * @property {string[]} colors
 * @property {number[]} knots
 * @property {[number, number] | null} plausible
 */

/**
 * @typedef {object} State
 * @property {string[]} datasets
 * @property {string | null} dataset
 * @property {Choice[]} variables
 * @property {string | null} variable
 * @property {string | null} note
 * @property {string | null} notice
 * @property {object | null} frame
 * @property {string | null} version
 * @property {{count: number, first: number | null, last: number | null}} times
 * @property {number} readings
 * @property {number} dead_letters
 * @property {{rate: number, lag: number | null, p50_ms: number | null, p95_ms: number | null} | null} pace
 */

const MISSING = 65535;
const STILL = -128;
const text = new TextDecoder();

/** @type {Map<string, Grid>} */
const grids = new Map();
const KEPT_GRIDS = 8;

/** The id of the newest grid of a dataset, so that its places are sent once.
 * @type {Map<string, string>} */
const newest = new Map();

/** @param {string | null} dataset */
export const knownGrid = (dataset) => (dataset && newest.get(dataset)) || null;

/**
 * A block of JSON and what follows it.
 * @param {ArrayBuffer} buffer
 * @param {number} at
 * @returns {[any, number]}
 */
function header(buffer, at) {
  const length = new DataView(buffer).getUint32(at, true);
  const end = at + 4 + length;
  return [JSON.parse(text.decode(new Uint8Array(buffer, at + 4, length))), end];
}

/**
 * An answer of the WebSocket.
 * @param {ArrayBuffer} buffer
 * @returns {{state?: State, error?: string, token: string, field: Field | null}}
 */
export function unpackLive(buffer) {
  const [said, at] = header(buffer, 0);
  return { ...said, field: at < buffer.byteLength ? unpackField(buffer, at) : null };
}

/**
 * @param {ArrayBuffer} buffer
 * @param {number} start
 * @returns {Field}
 */
export function unpackField(buffer, start = 0) {
  let [head, at] = header(buffer, start);
  const n = head.grid.n;
  let grid = grids.get(head.grid.id);
  if (head.places) {
    const row = new Uint16Array(buffer, at, n);
    const column = new Uint16Array(buffer, at + 2 * n, n);
    at += 4 * n;
    if (!grid) {
      grid = makeGrid(head.grid, row, column);
      if (!head.part) remember(grid);
    }
  }
  if (!grid) throw new Error(`the grid ${head.grid.id} is not known`);
  if (!head.part) newest.set(head.dataset, grid.id);
  const numbers = new Uint16Array(buffer, at, n);
  at += 2 * n;
  const size = grid.rows * grid.columns;
  const values = new Float32Array(size).fill(NaN);
  const { place } = grid;
  for (let i = 0; i < n; i++) {
    if (numbers[i] !== MISSING) values[place[i]] = head.low + head.step * numbers[i];
  }
  let u = null;
  let v = null;
  if (head.wind) {
    const east = new Int8Array(buffer, at, n);
    const north = new Int8Array(buffer, at + n, n);
    u = new Float32Array(size).fill(NaN);
    v = new Float32Array(size).fill(NaN);
    for (let i = 0; i < n; i++) {
      if (east[i] === STILL || north[i] === STILL) continue;
      u[place[i]] = head.wind * east[i];
      v[place[i]] = head.wind * north[i];
    }
  }
  return { ...head, grid, values, u, v, bytes: buffer.byteLength };
}

/**
 * @param {any} said
 * @param {Uint16Array} row
 * @param {Uint16Array} column
 * @returns {Grid}
 */
function makeGrid(said, row, column) {
  const place = new Int32Array(said.n);
  const at = new Int32Array(said.rows * said.columns).fill(-1);
  for (let i = 0; i < said.n; i++) {
    place[i] = row[i] * said.columns + column[i];
    at[place[i]] = i;
  }
  return { ...said, place, at };
}

/** @param {Grid} grid */
function remember(grid) {
  grids.set(grid.id, grid);
  while (grids.size > KEPT_GRIDS) grids.delete(/** @type {string} */ (grids.keys().next().value));
}

/** An answer that says what is wrong. */
export class Refused extends Error {}

/**
 * @param {string} path
 * @param {Record<string, string | number | null | undefined>} said what is null is left out
 * @returns {string}
 */
export function address(path, said) {
  const known = Object.entries(said).filter(([, value]) => value !== null && value !== undefined);
  return `${path}?${new URLSearchParams(known.map(([key, value]) => [key, String(value)]))}`;
}

/**
 * @param {string} path
 * @param {Record<string, string | number | null | undefined>} said
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function getJson(path, said, signal) {
  const answer = await fetch(address(path, said), { signal });
  const content = await answer.json();
  if (!answer.ok) throw new Refused(content.error);
  return content;
}

/**
 * @param {Record<string, string | number | null | undefined>} said
 * @param {AbortSignal} [signal]
 * @returns {Promise<Field>}
 */
export async function getField(said, signal) {
  const grid = said.box ? null : knownGrid(String(said.dataset));
  const answer = await fetch(address("/frame", { ...said, grid }), { signal });
  if (!answer.ok) throw new Refused((await answer.json()).error);
  return unpackField(await answer.arrayBuffer());
}
