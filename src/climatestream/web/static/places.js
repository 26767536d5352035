// @ts-check
/** Names of cities on the map: the largest first, and none over another. */

/** @typedef {import("./view.js").View} View */

/**
 * @typedef {object} Place
 * @property {string} name
 * @property {number} latitude
 * @property {number} longitude
 */

const ROOM = 26_000; // square pixels for each name at least
const APART = 5; // pixels between two names

/**
 * @param {CanvasRenderingContext2D} context
 * @param {View} view
 * @param {Place[]} places the largest first
 * @param {(x: number, y: number) => boolean} within whether a place on the stage is to have a name
 */
export function names(context, view, places, within) {
  /** @type {[number, number, number, number][]} */
  const taken = [];
  let left = Math.floor((view.width * view.height) / ROOM);
  context.font = "600 12px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  for (const { name, latitude, longitude } of places) {
    if (left <= 0) break;
    const x = view.x(longitude + 360 * Math.round((view.longitude - longitude) / 360));
    const y = view.y(latitude);
    const width = context.measureText(name).width;
    if (x < 8 || y < 12 || y > view.height - 12 || x + width > view.width - 8 || !within(x, y)) continue;
    /** @type {[number, number, number, number]} */
    const box = [x - 4, y - 8, x + 9 + width, y + 8];
    if (taken.some((one) => box[0] < one[2] + APART && box[2] > one[0] - APART && box[1] < one[3] + APART && box[3] > one[1] - APART)) continue;
    taken.push(box);
    left--;
    context.strokeStyle = "rgb(255 255 255 / 0.78)";
    context.fillStyle = "#0d1722";
    context.lineWidth = 3.4;
    context.beginPath();
    context.arc(x, y, 2.6, 0, 2 * Math.PI);
    context.stroke();
    context.fill();
    context.strokeText(name, x + 7, y + 0.5);
    context.fillText(name, x + 7, y + 0.5);
  }
}
