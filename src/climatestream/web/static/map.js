// @ts-check
/** The map: layers of canvas over each other, each drawn again only when it has changed. */

import { arrows } from "./arrows.js";
import { Outlines } from "./outlines.js";
import { keys, pointers } from "./gestures.js";
import { names } from "./places.js";
import { along, Raster } from "./raster.js";
import { View } from "./view.js";

/** @typedef {import("./wire.js").Field} Field */
/** @typedef {import("./wire.js").Choice} Choice */
/**
 * @typedef {object} Cell
 * @property {number} latitude its centre, as the field's grid has it; of the pointer where boxed
 * @property {number} longitude
 * @property {string} key another one for another cell
 * @property {boolean} boxed whether the values are means of a box of cells
 * @property {number} value
 * @property {number} speed of the wind [m/s]
 * @property {number} from where it blows [degree]
 */

const FIELD_PIXELS = 1_100_000; // of the layer that moves: a smooth field needs no more
const QUICK_MS = 90; // from one field to the next when they come quickly
const SLOW_MS = 650;

/** How light a colour of a scale is, 0 to 1.
 * @param {string[]} colors
 * @param {number} share */
function luminance(colors, share) {
  const color = colors[Math.round(share * (colors.length - 1))];
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16) / 255);
  return 0.3 * r + 0.59 * g + 0.11 * b;
}

export class ClimateMap extends EventTarget {
  /** @param {HTMLElement} stage holds the canvases and takes the pointer and the keys */
  constructor(stage) {
    super();
    this.stage = stage;
    this.view = new View();
    this.outlines = new Outlines();
    this.raster = new Raster();
    /** What is in sight of a field that is drawn in boxes, finer, and where it was asked for.
     * @type {Field | null} */
    this.part = null;
    /** @type {import("./view.js").Box | null} */
    this.partBox = null;
    this.partRaster = new Raster();
    this.smooth = true;
    this.winds = true;
    this.still = false;
    /** @type {Field | null} */
    this.field = null;
    /** @type {Field | null} */
    this.before = null;
    /** @type {Choice | null} */
    this.choice = null;
    /** @type {{latitude: number, longitude: number} | null} */
    this.marked = null;
    this.named = true;
    /** Cities in sight, the largest first. @type {import("./places.js").Place[]} */
    this.places = [];
    this.keyed = false;
    this.dark = false;
    /** Fields and frames drawn, for whoever measures. */
    this.drawn = { fields: 0, frames: 0, first: 0 };
    this.began = 0;
    this.lasts = 0;
    this.shownAt = 0;
    this.changed = { view: true, field: true, lines: true };
    this.asked = false;
    this.touched = false;
    this.ratio = 1;
    this.canvases = {};
    this.layers = {
      base: this.#layer("base"),
      field: this.#layer("field"),
      wind: this.#layer("wind"),
      lines: this.#layer("lines"),
    };
    const mask = document.createElement("canvas");
    this.mask = /** @type {CanvasRenderingContext2D} */ (mask.getContext("2d"));
    this.colors = { land: "#1a2532", border: "#33465a", outline: "#e8eef5", mark: "#fff" };
    new ResizeObserver(() => this.#resize()).observe(stage);
    pointers(this);
    keys(this);
    this.#resize();
  }

  /** @param {string} name */
  #layer(name) {
    const canvas = document.createElement("canvas");
    canvas.className = `layer ${name}`;
    canvas.setAttribute("aria-hidden", "true");
    this.stage.append(canvas);
    return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  }

  async loadOutlines() {
    await this.outlines.load();
    if (this.field && this.choice) this.#raster(this.field, this.choice);
    this.#change("view");
  }

  /** @param {Partial<ClimateMap["colors"]>} colors */
  paint(colors) {
    Object.assign(this.colors, colors);
    this.#change("view");
  }

  /** @param {{smooth?: boolean, winds?: boolean, named?: boolean, still?: boolean}} style */
  set(style) {
    Object.assign(this, style);
    if (this.field && this.choice) this.#raster(this.field, this.choice);
    this.#change("view");
  }

  /**
   * Show a field, moving from the one before.
   * @param {Field} field
   * @param {Choice} choice
   * @param {boolean} [jump] at once
   */
  show(field, choice, jump = false) {
    const now = performance.now();
    const first = this.field?.dataset !== field.dataset;
    this.before = jump || first || this.field?.grid !== field.grid ? null : this.field;
    this.field = field;
    this.choice = choice;
    if (this.part && (this.part.version !== field.version || this.part.variable !== field.variable)) this.part = null;
    this.#raster(field, choice);
    const gap = now - this.shownAt;
    this.lasts = jump || this.still || !this.before ? 0 : Math.min(Math.max(gap * 0.75, QUICK_MS), SLOW_MS);
    this.began = now;
    this.shownAt = now;
    this.drawn.fields++;
    if (first && !this.touched) this.fit();
    this.#change("field");
  }

  /**
   * Show what is in sight of the field that is shown, finer.
   * @param {Field} part
   * @param {import("./view.js").Box} box that it was asked for
   */
  sharpen(part, box) {
    if (!this.choice || part.version !== this.field?.version || part.variable !== this.field.variable) return;
    this.part = part;
    this.partBox = box;
    this.partRaster.show(part, this.choice, this.smooth, false);
    this.partRaster.draw(1);
    this.#change("view");
  }

  /** Whether all that is in sight is there as fine as it can be. */
  get sharp() {
    const { view, part, partBox } = this;
    if (!this.field?.boxed) return true;
    if (!part || !partBox) return false;
    const box = view.box();
    const within = box.south >= partBox.south && box.north <= partBox.north && box.west >= partBox.west && box.east <= partBox.east;
    return within && !(part.boxed && partBox.north - partBox.south > 1.6 * (box.north - box.south));
  }

  clear() {
    this.field = this.before = this.part = null;
    this.#change("view");
  }

  /**
   * @param {Field} field
   * @param {Choice} choice
   */
  #raster(field, choice) {
    this.raster.show(field, choice, this.smooth, this.#clipped(field));
    if (!this.part) return;
    this.partRaster.show(this.part, choice, this.smooth, false);
    this.partRaster.draw(1);
  }

  /** @param {Field} field */
  #clipped(field) {
    return this.smooth && field.grid.countries.length > 0 && this.outlines.arcs.length > 0;
  }

  /** The whole of the data. */
  fit() {
    if (!this.field) return;
    const { grid } = this.field;
    this.touched = false;
    this.view.fit({
      south: grid.south - grid.step_lat / 2,
      north: grid.south + (grid.rows - 0.5) * grid.step_lat,
      west: grid.west - grid.step_lon / 2,
      east: grid.west + (grid.columns - 0.5) * grid.step_lon,
    });
    this.#moved();
  }

  /**
   * @param {number} latitude
   * @param {number} longitude
   * @param {number} scale pixels a degree
   */
  look(latitude, longitude, scale) {
    if (this.field) this.fit();
    Object.assign(this.view, { latitude, longitude });
    this.view.zoom(scale / this.view.scale);
    Object.assign(this.view, { latitude, longitude });
    this.touched = true;
    this.#moved();
  }

  /** @param {number} factor */
  zoom(factor, x = this.view.width / 2, y = this.view.height / 2) {
    this.touched = true;
    this.view.zoom(factor, x, y);
    this.#moved();
  }

  /**
   * @param {number} dx
   * @param {number} dy
   */
  pan(dx, dy) {
    this.touched = true;
    this.view.pan(dx, dy);
    this.#moved();
  }

  /** @param {import("./places.js").Place[]} places the largest first */
  name(places) {
    this.places = places;
    this.#change("lines");
  }

  /** @param {{latitude: number, longitude: number} | null} place */
  mark(place) {
    this.marked = place;
    this.#change("lines");
  }

  #moved() {
    this.#change("view");
    this.dispatchEvent(new Event("view"));
  }

  /** @param {"view" | "field" | "lines"} what */
  #change(what) {
    this.changed[what] = true;
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame((now) => this.#draw(now));
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return;
    this.ratio = Math.min(window.devicePixelRatio || 1, 2);
    const fieldRatio = Math.min(this.ratio, Math.sqrt(FIELD_PIXELS / (width * height)));
    for (const [name, context] of Object.entries({ ...this.layers, mask: this.mask })) {
      const ratio = name === "field" || name === "mask" ? fieldRatio : this.ratio;
      context.canvas.width = Math.round(width * ratio);
      context.canvas.height = Math.round(height * ratio);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    Object.assign(this.view, { width, height });
    if (this.touched) this.#moved();
    else if (this.field) this.fit();
    this.#change("view");
  }

  // ---------------------------------------------------------------------------- drawing

  /** @param {number} now */
  #draw(now) {
    this.asked = false;
    const share = this.lasts ? Math.min(Math.max((now - this.began) / this.lasts, 0), 1) : 1;
    const { view: moved, field: newField, lines } = this.changed;
    this.changed = { view: false, field: false, lines: false };
    if (moved) {
      this.#drawBase();
      this.#drawMask();
    }
    if (moved || newField) {
      this.#drawField(share);
      this.#drawWind(share);
    }
    if (moved || lines) this.#drawLines();
    this.drawn.frames++;
    if (this.field) this.drawn.first ||= performance.now();
    if (share < 1) this.#change("field");
    else this.before = null;
  }

  /** @param {CanvasRenderingContext2D} context */
  #wipe(context) {
    context.clearRect(0, 0, this.view.width, this.view.height);
  }

  #drawBase() {
    const context = this.layers.base;
    this.#wipe(context);
    const { view, outlines } = this;
    context.fillStyle = this.colors.land;
    context.fill(outlines.areas(view, outlines.countries.keys()), "evenodd");
    context.lineJoin = "round";
    context.strokeStyle = this.colors.border;
    context.lineWidth = 1;
    context.stroke(outlines.lines(view, outlines.arcs));
  }

  #drawMask() {
    this.#wipe(this.mask);
    if (!this.field || !this.#clipped(this.field)) return;
    this.mask.fillStyle = "#000";
    this.mask.fill(this.outlines.areas(this.view, this.field.grid.countries), "evenodd");
  }

  /** @param {number} share */
  #drawField(share) {
    const context = this.layers.field;
    this.#wipe(context);
    if (!this.field) return;
    this.raster.draw(share);
    context.imageSmoothingEnabled = this.smooth;
    context.imageSmoothingQuality = "low";
    this.#place(context, this.raster);
    if (this.part) this.#place(context, this.partRaster);
    if (this.#clipped(this.field)) {
      context.globalCompositeOperation = "destination-in";
      context.drawImage(this.mask.canvas, 0, 0, this.view.width, this.view.height);
      context.globalCompositeOperation = "source-over";
    }
  }

  /**
   * Put a raster where it belongs, in place of what is there.
   * @param {CanvasRenderingContext2D} context
   * @param {Raster} raster
   */
  #place(context, raster) {
    const { view } = this;
    const { south, north, west, east } = raster.box();
    const top = view.y(north);
    for (const turn of [-360, 0, 360]) {
      const left = view.x(west + turn);
      const right = view.x(east + turn);
      if (right < 0 || left > view.width) continue;
      context.clearRect(left, top, right - left, view.y(south) - top);
      context.drawImage(raster.canvas, left, top, right - left, view.y(south) - top);
    }
  }

  /** @param {number} share */
  #drawWind(share) {
    const context = this.layers.wind;
    this.#wipe(context);
    if (!this.field || !this.winds) return;
    const fine = this.sharp ? this.part : null;
    const shown = fine ?? this.field;
    const within = this.#clipped(this.field) ? this.outlines.within(shown.grid, this.field.grid.countries) : null;
    const path = arrows(this.view, shown, fine ? null : this.before, share, within);
    context.lineCap = "round";
    context.lineJoin = "round";
    // the one that stands out from the colours below, in a breath of the other
    const { choice, field } = this;
    if (choice) {
      const light = luminance(choice.colors, along(choice.knots, field.mean));
      if (Math.abs(light - 0.5) > 0.07) this.dark = light > 0.5;
    }
    context.strokeStyle = this.dark ? "rgb(255 255 255 / 0.28)" : "rgb(6 12 20 / 0.4)";
    context.lineWidth = 2.8;
    context.stroke(path);
    context.strokeStyle = this.dark ? "rgb(12 22 34 / 0.82)" : "rgb(255 255 255 / 0.95)";
    context.lineWidth = 1.25;
    context.stroke(path);
  }

  #drawLines() {
    const context = this.layers.lines;
    this.#wipe(context);
    const { view, outlines, field } = this;
    context.lineJoin = "round";
    if (field) {
      const codes = field.grid.countries.length ? field.grid.countries : [];
      const arcs = codes.length ? outlines.arcsOf(codes) : outlines.arcs;
      const path = outlines.lines(view, arcs);
      context.strokeStyle = this.colors.outline;
      context.lineWidth = codes.length ? 1.6 : 0.9;
      context.stroke(path);
    }
    if (field && this.named) names(context, view, this.places, (x, y) => this.cellAt(x, y) !== null);
    if (this.marked && field) {
      const { grid } = this.part ?? field;
      const width = Math.max(grid.step_lon * view.scale * view.squeeze, 9);
      const height = Math.max(grid.step_lat * view.scale, 9);
      const x = view.x(this.marked.longitude);
      const y = view.y(this.marked.latitude);
      context.lineWidth = 4;
      context.strokeStyle = "rgb(0 0 0 / 0.65)";
      context.strokeRect(x - width / 2, y - height / 2, width, height);
      context.lineWidth = 2;
      context.strokeStyle = this.colors.mark;
      context.strokeRect(x - width / 2, y - height / 2, width, height);
    }
    if (this.keyed) {
      const [x, y] = [view.width / 2, view.height / 2];
      context.strokeStyle = this.colors.mark;
      context.lineWidth = 1.5;
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + 5 * dx, y + 5 * dy);
        context.lineTo(x + 15 * dx, y + 15 * dy);
      }
      context.stroke();
    }
  }

  /**
   * The map as a picture, all layers on one ground.
   * @param {string} ground
   * @param {(context: CanvasRenderingContext2D, width: number, height: number) => void} more
   * @returns {Promise<Blob>}
   */
  picture(ground, more) {
    const canvas = document.createElement("canvas");
    const { width, height } = this.view;
    canvas.width = Math.round(width * this.ratio);
    canvas.height = Math.round(height * this.ratio);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.fillStyle = ground;
    context.fillRect(0, 0, width, height);
    for (const layer of Object.values(this.layers)) context.drawImage(layer.canvas, 0, 0, width, height);
    more(context, width, height);
    return new Promise((done, failed) =>
      canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("no picture was made"))), "image/png"),
    );
  }

  // ---------------------------------------------------------------------- pointer and keys

  /**
   * The cell at a place of the stage; null where there is none.
   * @param {number} x
   * @param {number} y
   * @returns {Cell | null}
   */
  cellAt(x, y) {
    return (this.part && this.#cellOf(this.part, x, y)) ?? (this.field && this.#cellOf(this.field, x, y));
  }

  /**
   * @param {Field} field
   * @param {number} x
   * @param {number} y
   * @returns {Cell | null}
   */
  #cellOf({ grid, values, u, v, boxed }, x, y) {
    const row = Math.round((this.view.latitudeAt(y) - grid.south) / grid.step_lat);
    const east = this.view.longitudeAt(x) - grid.west;
    const column = Math.round((((east + grid.step_lon / 2) % 360) + 360) % 360 / grid.step_lon - 0.5);
    if (row < 0 || row >= grid.rows || column < 0 || column >= grid.columns) return null;
    const place = row * grid.columns + column;
    if (grid.at[place] < 0) return null;
    const [e, n] = u && v ? [u[place], v[place]] : [NaN, NaN];
    const latitude = boxed ? this.view.latitudeAt(y) : grid.south + row * grid.step_lat;
    const longitude = boxed ? this.view.longitudeAt(x) : grid.west + column * grid.step_lon;
    return {
      latitude,
      longitude: (((longitude + 180) % 360) + 360) % 360 - 180,
      key: boxed ? `${latitude.toFixed(2)},${longitude.toFixed(2)}` : String(place),
      boxed,
      value: values[place],
      speed: Math.hypot(e, n),
      from: (Math.atan2(-e, -n) * 180) / Math.PI,
    };
  }

  /**
   * @param {number} x
   * @param {number} y
   * @param {boolean} keyed
   */
  hover(x, y, keyed) {
    if (this.keyed !== keyed) this.#change("lines");
    this.keyed = keyed;
    this.dispatchEvent(new CustomEvent("hover", { detail: { x, y } }));
  }

  leave() {
    if (this.keyed) this.#change("lines");
    this.keyed = false;
    this.dispatchEvent(new CustomEvent("hover", { detail: null }));
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  pick(x, y) {
    const cell = this.cellAt(x, y);
    if (cell) this.dispatchEvent(new CustomEvent("pick", { detail: cell }));
  }
}
