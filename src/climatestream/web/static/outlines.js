// @ts-check
/** Outlines of countries: Natural Earth's, with the borders that two countries share once. */

import { getJson } from "./wire.js";

/** @typedef {Pick<import("./view.js").View, "x" | "y" | "box">} View */
/** @typedef {import("./wire.js").Grid} Grid */

const FINER = 3; // pixels a cell, of the middle of which it is told whether it lies within

/**
 * @typedef {object} Arc
 * @property {Float32Array} points longitude, latitude, longitude, ...
 * @property {number} south
 * @property {number} north
 * @property {number} west
 * @property {number} east
 * @property {boolean} coast whether one country alone has it
 */

/**
 * @typedef {object} Country
 * @property {string} name
 * @property {Arc[]} arcs
 * @property {Float32Array[]} rings
 * @property {number[][]} boxes of the rings: south, north, west, east
 */

export class Outlines {
  constructor() {
    /** @type {Arc[]} */
    this.arcs = [];
    /** @type {Map<string, Country>} */
    this.countries = new Map();
    /** @type {WeakMap<Grid, Uint8Array>} */
    this.found = new WeakMap();
  }

  async load() {
    const topology = await getJson("/countries.json", {});
    const [scale] = topology.transform.scale;
    const users = new Uint8Array(topology.arcs.length);
    const arcs = topology.arcs.map((/** @type {number[][]} */ steps) => {
      const points = new Float32Array(2 * steps.length);
      let x = 0;
      let y = 0;
      const arc = { points, south: 90, north: -90, west: 180, east: -180, coast: true };
      steps.forEach(([dx, dy], i) => {
        points[2 * i] = (x += dx) * scale;
        points[2 * i + 1] = (y += dy) * scale;
        arc.west = Math.min(arc.west, x * scale);
        arc.east = Math.max(arc.east, x * scale);
        arc.south = Math.min(arc.south, y * scale);
        arc.north = Math.max(arc.north, y * scale);
      });
      return arc;
    });
    for (const { id, properties, arcs: polygons } of topology.objects.countries.geometries) {
      const numbers = polygons.flat(2).map((/** @type {number} */ n) => (n < 0 ? ~n : n));
      for (const n of numbers) users[n]++;
      const rings = polygons.flat(1).map((/** @type {number[]} */ ring) => join(arcs, ring));
      this.countries.set(id, {
        name: properties.name,
        arcs: numbers.map((/** @type {number} */ n) => arcs[n]),
        rings,
        boxes: rings.map(boxOf),
      });
    }
    arcs.forEach((/** @type {Arc} */ arc, /** @type {number} */ i) => (arc.coast = users[i] < 2));
    this.arcs = arcs;
  }

  /** @param {string | null} code */
  name(code) {
    return (code && this.countries.get(code)?.name) || "";
  }

  /**
   * The lines in sight, each turn of the globe that is.
   * @param {View} view
   * @param {Arc[]} arcs
   * @returns {Path2D}
   */
  lines(view, arcs) {
    const path = new Path2D();
    for (const turn of turns(view)) {
      const box = view.box();
      for (const arc of arcs) {
        if (arc.north < box.south || arc.south > box.north) continue;
        if (arc.east + turn < box.west || arc.west + turn > box.east) continue;
        trace(path, view, arc.points, turn);
      }
    }
    return path;
  }

  /**
   * The areas of countries in sight.
   * @param {View} view
   * @param {Iterable<string>} codes
   * @returns {Path2D}
   */
  areas(view, codes) {
    const path = new Path2D();
    for (const turn of turns(view)) {
      const box = view.box();
      for (const code of codes) {
        const country = this.countries.get(code);
        country?.rings.forEach((ring, i) => {
          const [south, north, west, east] = country.boxes[i];
          if (north < box.south || south > box.north) return;
          if (east + turn < box.west || west + turn > box.east) return;
          trace(path, view, ring, turn);
          path.closePath();
        });
      }
    }
    return path;
  }

  /**
   * Which cells have their middle within countries: 1 for those.
   * @param {Grid} grid
   * @param {Iterable<string>} codes always the same for a grid
   * @returns {Uint8Array}
   */
  within(grid, codes) {
    const known = this.found.get(grid);
    if (known) return known;
    const { south, west, step_lat, step_lon, rows, columns } = grid;
    const view = {
      x: (/** @type {number} */ longitude) => FINER * ((longitude - west) / step_lon + 0.5),
      y: (/** @type {number} */ latitude) => FINER * ((latitude - south) / step_lat + 0.5),
      box: () => ({
        south: south - step_lat / 2,
        north: south + (rows - 0.5) * step_lat,
        west: west - step_lon / 2,
        east: west + (columns - 0.5) * step_lon,
      }),
    };
    const canvas = new OffscreenCanvas(FINER * columns, FINER * rows);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    context.fill(this.areas(view, codes), "evenodd");
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const within = new Uint8Array(rows * columns);
    for (let row = 0, place = 0; row < rows; row++) {
      const line = (FINER * row + 1) * canvas.width + 1;
      for (let column = 0; column < columns; column++, place++) {
        within[place] = data[4 * (line + FINER * column) + 3] > 127 ? 1 : 0;
      }
    }
    this.found.set(grid, within);
    return within;
  }

  /** @param {Iterable<string>} codes */
  arcsOf(codes) {
    /** @type {Set<Arc>} */
    const arcs = new Set();
    for (const code of codes) for (const arc of this.countries.get(code)?.arcs ?? []) arcs.add(arc);
    return [...arcs];
  }
}

/**
 * The turns of the globe that are in sight [degree].
 * @param {View} view
 */
function turns(view) {
  const { west, east } = view.box();
  const found = [];
  for (let turn = Math.ceil((west - 180) / 360); turn <= Math.floor((east + 180) / 360); turn++) {
    found.push(360 * turn);
  }
  return found;
}

const FINE = 0.6; // pixels from one point to the next: finer detail can't be seen

/**
 * @param {Path2D} path
 * @param {View} view
 * @param {Float32Array} points
 * @param {number} turn
 */
function trace(path, view, points, turn) {
  const last = points.length - 2;
  let x = view.x(points[0] + turn);
  let y = view.y(points[1]);
  path.moveTo(x, y);
  for (let i = 2; i <= last; i += 2) {
    const nextX = view.x(points[i] + turn);
    const nextY = view.y(points[i + 1]);
    if (i < last && Math.abs(nextX - x) < FINE && Math.abs(nextY - y) < FINE) continue;
    x = nextX;
    y = nextY;
    path.lineTo(x, y);
  }
}

/**
 * @param {Arc[]} arcs
 * @param {number[]} numbers of arcs, ~n for one that is run backwards
 */
function join(arcs, numbers) {
  const parts = numbers.map((n) => (n >= 0 ? arcs[n].points : backwards(arcs[~n].points)));
  const ring = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    ring.set(part, at);
    at += part.length;
  }
  return ring;
}

/** @param {Float32Array} points */
function backwards(points) {
  const turned = new Float32Array(points.length);
  for (let i = 0; i < points.length; i += 2) {
    turned[i] = points[points.length - 2 - i];
    turned[i + 1] = points[points.length - 1 - i];
  }
  return turned;
}

/** @param {Float32Array} ring */
function boxOf(ring) {
  const box = [90, -90, 180, -180];
  for (let i = 0; i < ring.length; i += 2) {
    box[0] = Math.min(box[0], ring[i + 1]);
    box[1] = Math.max(box[1], ring[i + 1]);
    box[2] = Math.min(box[2], ring[i]);
    box[3] = Math.max(box[3], ring[i]);
  }
  return box;
}
