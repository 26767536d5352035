// @ts-check
/** Where the map looks: a plate carrée whose scale is right at the middle of the data. */

const CLOSEST = 4000; // pixels a degree
const CLOSE = 90; // pixels a degree at which a fit stops: a single cell is no map

/**
 * @typedef {object} Box
 * @property {number} south
 * @property {number} north
 * @property {number} west
 * @property {number} east
 */

export class View {
  constructor() {
    this.width = 1;
    this.height = 1;
    this.latitude = 51;
    this.longitude = 10;
    /** Pixels a degree of latitude. */
    this.scale = 60;
    /** Pixels a degree of longitude are the scale times this. */
    this.squeeze = 0.63;
    /** The least scale: the whole of the world or of the data, with room around. */
    this.least = 1;
    /** @type {Box | null} */
    this.home = null;
    /** What lies over the map and is not to be covered by data [pixels]. */
    this.margin = { top: 70, right: 24, bottom: 24, left: 24 };
  }

  /** @param {number} longitude */
  x(longitude) {
    return this.width / 2 + (longitude - this.longitude) * this.scale * this.squeeze;
  }

  /** @param {number} latitude */
  y(latitude) {
    return this.height / 2 - (latitude - this.latitude) * this.scale;
  }

  /** @param {number} x */
  longitudeAt(x) {
    return this.longitude + (x - this.width / 2) / (this.scale * this.squeeze);
  }

  /** @param {number} y */
  latitudeAt(y) {
    return this.latitude - (y - this.height / 2) / this.scale;
  }

  /** What is in sight.
   * @returns {Box} */
  box() {
    return {
      south: this.latitudeAt(this.height),
      north: this.latitudeAt(0),
      west: this.longitudeAt(0),
      east: this.longitudeAt(this.width),
    };
  }

  /**
   * Show a box whole.
   * @param {Box} box
   */
  fit(box) {
    this.home = box;
    const middle = (box.south + box.north) / 2;
    this.squeeze = Math.cos((Math.min(Math.abs(middle), 65) * Math.PI) / 180);
    const { top, right, bottom, left } = this.margin;
    const width = Math.max(this.width - left - right, 80);
    const height = Math.max(this.height - top - bottom, 80);
    const scale = Math.min(
      height / Math.max(box.north - box.south, 1e-6),
      width / Math.max((box.east - box.west) * this.squeeze, 1e-6),
    );
    this.scale = Math.min(scale, CLOSE * 4);
    this.least = Math.min(this.scale / 4, this.height / 150);
    this.latitude = middle + (top - bottom) / 2 / this.scale;
    this.longitude = (box.west + box.east) / 2 + (right - left) / 2 / (this.scale * this.squeeze);
  }

  /**
   * @param {number} dx pixels to the right
   * @param {number} dy pixels down
   */
  pan(dx, dy) {
    this.longitude -= dx / (this.scale * this.squeeze);
    this.latitude += dy / this.scale;
    this.keep();
  }

  /**
   * @param {number} factor
   * @param {number} x what stays where it is
   * @param {number} y
   */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const longitude = this.longitudeAt(x);
    const latitude = this.latitudeAt(y);
    this.scale = Math.min(Math.max(this.scale * factor, this.least), CLOSEST);
    this.longitude += longitude - this.longitudeAt(x);
    this.latitude += latitude - this.latitudeAt(y);
    this.keep();
  }

  /** Stay on the globe. */
  keep() {
    this.latitude = Math.min(Math.max(this.latitude, -90), 90);
    if (this.longitude > 540) this.longitude -= 360;
    if (this.longitude < -540) this.longitude += 360;
  }
}
