// @ts-check
/** A field as an image: smooth or as cells, and anything between two fields. */

/** @typedef {import("./wire.js").Field} Field */
/** @typedef {import("./wire.js").Choice} Choice */

const SHADES = 1023;
const MOST = 260_000; // pixels of an image: more are not seen, and each is drawn at every frame
const FINEST = 6; // pixels of an image along a cell at most
const RINGS = 3; // cells that a smooth field is continued by, so that an outline has colour below it

/** Colours by number, 0 is transparent: `SHADES` from the lowest value to the highest.
 * @param {string[]} colors
 * @returns {Uint32Array} */
function shadesOf(colors) {
  const stops = colors.map((color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16)));
  const shades = new Uint32Array(SHADES + 1);
  for (let i = 0; i < SHADES; i++) {
    const at = (i / (SHADES - 1)) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    const [r, g, b] = stops[low].map((one, k) => Math.round(one + (stops[low + 1][k] - one) * (at - low)));
    shades[i + 1] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return shades;
}

/** The colour at a share of a scale, 0 to 1.
 * @param {string[]} colors
 * @param {number} share */
export function colorAt(colors, share) {
  const at = share * (colors.length - 1);
  const low = Math.min(Math.floor(at), colors.length - 2);
  const [from, to] = [colors[low], colors[low + 1]].map((color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16)));
  return `rgb(${from.map((one, k) => Math.round(one + (to[k] - one) * (at - low))).join()})`;
}

/** How far along the scale a value lies, 0 to 1.
 * @param {number[]} knots
 * @param {number} value */
export function along(knots, value) {
  const last = knots.length - 1;
  if (value <= knots[0]) return 0;
  if (value >= knots[last]) return 1;
  let i = 0;
  while (value > knots[i + 1]) i++;
  return (i + (value - knots[i]) / (knots[i + 1] - knots[i])) / last;
}

/**
 * @typedef {object} Layer an image's numbers, north first: 1 to SHADES, 0 where there is nothing
 * @property {Float32Array} numbers
 * @property {number} width
 * @property {number} height
 */

/**
 * @param {Field} field
 * @param {number[]} knots
 * @param {boolean} smooth
 * @param {boolean} clipped whether an outline will cut it: it is then continued beyond its cells
 * @returns {Layer}
 */
function layerOf(field, knots, smooth, clipped) {
  const { rows, columns } = field.grid;
  const flat = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const from = row * columns;
    const to = (rows - 1 - row) * columns;
    for (let column = 0; column < columns; column++) {
      const value = field.values[from + column];
      flat[to + column] = value === value ? 1 + along(knots, value) * (SHADES - 1) : 0;
    }
  }
  if (!smooth) return { numbers: flat, width: columns, height: rows };
  const edge = clipped ? RINGS : 0;
  const wide = padded(flat, columns, rows, edge);
  const width = columns + 2 * edge;
  const height = rows + 2 * edge;
  const filled = continued(wide, width, height, Math.max(edge, 2));
  const fine = Math.max(1, Math.min(FINEST, Math.floor(Math.sqrt(MOST / (width * height)))));
  return refined(filled, clipped ? filled : wide, width, height, fine);
}

/**
 * @param {Float32Array} flat
 * @param {number} width
 * @param {number} height
 * @param {number} edge
 */
function padded(flat, width, height, edge) {
  if (!edge) return flat;
  const wide = new Float32Array((width + 2 * edge) * (height + 2 * edge));
  for (let y = 0; y < height; y++) {
    wide.set(flat.subarray(y * width, (y + 1) * width), (y + edge) * (width + 2 * edge) + edge);
  }
  return wide;
}

/** Cells around the field get the mean of their neighbours, ring by ring.
 * @param {Float32Array} flat
 * @param {number} width
 * @param {number} height
 * @param {number} rings */
function continued(flat, width, height, rings) {
  let from = flat;
  for (let ring = 0; ring < rings; ring++) {
    const to = from.slice();
    for (let y = 0; y < height; y++) {
      const top = Math.max(y - 1, 0);
      const bottom = Math.min(y + 1, height - 1);
      for (let x = 0; x < width; x++) {
        if (from[y * width + x]) continue;
        let sum = 0;
        let count = 0;
        const right = Math.min(x + 1, width - 1);
        for (let v = top; v <= bottom; v++) {
          for (let w = Math.max(x - 1, 0); w <= right; w++) {
            const one = from[v * width + w];
            if (one) {
              sum += one;
              count++;
            }
          }
        }
        if (count) to[y * width + x] = sum / count;
      }
    }
    from = to;
  }
  return from;
}

/** The field on a finer grid, by cubic curves through its cells (Catmull and Rom's).
 * @param {Float32Array} flat 0 where nothing is known
 * @param {Float32Array} shown 0 where nothing is to be seen
 * @param {number} width
 * @param {number} height
 * @param {number} fine
 * @returns {Layer} */
function refined(flat, shown, width, height, fine) {
  const wide = width * fine;
  const high = height * fine;
  const weights = Array.from({ length: fine }, (_, i) => {
    const t = (i + 0.5) / fine - 0.5;
    const shift = t < 0 ? -1 : 0;
    const s = t - shift;
    return {
      shift,
      w: [
        ((-s + 2) * s - 1) * s * 0.5,
        ((3 * s - 5) * s * s + 2) * 0.5,
        ((-3 * s + 4) * s + 1) * s * 0.5,
        (s - 1) * s * s * 0.5,
      ],
    };
  });
  const rows = new Float32Array(wide * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const own = flat[y * width + x];
      if (!own) continue;
      for (let i = 0; i < fine; i++) {
        const { shift, w } = weights[i];
        let sum = 0;
        for (let k = 0; k < 4; k++) {
          const at = Math.min(Math.max(x + shift - 1 + k, 0), width - 1);
          sum += w[k] * (flat[y * width + at] || own);
        }
        rows[y * wide + x * fine + i] = sum;
      }
    }
  }
  const numbers = new Float32Array(wide * high);
  for (let y = 0; y < height; y++) {
    for (let i = 0; i < fine; i++) {
      const { shift, w } = weights[i];
      const at = [0, 1, 2, 3].map(
        (k) => Math.min(Math.max(y + shift - 1 + k, 0), height - 1) * wide,
      );
      const out = (y * fine + i) * wide;
      for (let x = 0; x < wide; x++) {
        if (!shown[y * width + ((x / fine) | 0)]) continue;
        const own = rows[y * wide + x];
        let sum = 0;
        for (let k = 0; k < 4; k++) sum += w[k] * (rows[at[k] + x] || own);
        numbers[out + x] = Math.min(Math.max(sum, 1), SHADES);
      }
    }
  }
  return { numbers, width: wide, height: high };
}

export class Raster {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    /** @type {Layer | null} */
    this.before = null;
    /** @type {Layer | null} */
    this.after = null;
    /** @type {Field | null} */
    this.field = null;
    /** @type {Uint32Array} */
    this.shades = new Uint32Array(SHADES + 1);
    this.key = "";
    this.smooth = true;
    this.clipped = false;
    /** @type {ImageData | null} */
    this.image = null;
    this.share = -1;
  }

  /**
   * Show a field; from what is shown now, if it is of the same kind.
   * @param {Field} field
   * @param {Choice} choice
   * @param {boolean} smooth
   * @param {boolean} clipped
   */
  show(field, choice, smooth, clipped) {
    const key = [field.grid.id, choice.name, choice.knots, smooth, clipped].join();
    this.before = key === this.key ? this.current() : null;
    this.after = layerOf(field, choice.knots, smooth, clipped);
    if (key !== this.key) this.shades = shadesOf(choice.colors);
    Object.assign(this, { key, field, smooth, clipped, share: -1 });
  }

  /** What is drawn now, though it be between two fields. */
  current() {
    const { before, after, share } = this;
    if (!before || !after || share >= 1 || share < 0) return after;
    const numbers = after.numbers.slice();
    const from = before.numbers;
    for (let i = 0; i < numbers.length; i++) {
      if (from[i] && numbers[i]) numbers[i] = from[i] + (numbers[i] - from[i]) * share;
    }
    return { ...after, numbers };
  }

  /**
   * Draw what lies between the field before and this one.
   * @param {number} share 0 the one before, 1 this one
   */
  draw(share) {
    const { before, after, shades } = this;
    if (!after || share === this.share) return;
    this.share = share;
    const { width, height, numbers: to } = after;
    if (this.canvas.width !== width || this.canvas.height !== height || !this.image) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.image = this.context.createImageData(width, height);
    }
    const pixels = new Uint32Array(this.image.data.buffer);
    if (before && share < 1) {
      const from = before.numbers;
      for (let i = 0; i < to.length; i++) {
        const a = from[i];
        const b = to[i];
        pixels[i] = shades[a && b ? (a + (b - a) * share) | 0 : b | 0];
      }
    } else {
      for (let i = 0; i < to.length; i++) pixels[i] = shades[to[i] | 0];
    }
    this.context.putImageData(this.image, 0, 0);
  }

  /** The edges of the image [degree]. */
  box() {
    const { grid } = /** @type {Field} */ (this.field);
    const edge = this.smooth && this.clipped ? RINGS : 0;
    return {
      south: grid.south - (edge + 0.5) * grid.step_lat,
      north: grid.south + (grid.rows - 0.5 + edge) * grid.step_lat,
      west: grid.west - (edge + 0.5) * grid.step_lon,
      east: grid.west + (grid.columns - 0.5 + edge) * grid.step_lon,
    };
  }
}
