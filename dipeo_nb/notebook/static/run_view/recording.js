// The log of a run as it has arrived: its rows, when each happened in live time, and the state after any of them.
import { emptyState, Fold } from "./fold.js";
import { isCut } from "./words.js";

const LEFT_OUT = "left_out"; // what stands in the place of a type in the row of the events that are not here
const EVERY = 1000; // rows between two kept states, at first: a seek back folds fewer than these
const KEPT = 64; // states at most: each may have all turns so far, so that one for every so many rows would be too much for the page

/** Whether a part of a value came without its end. */
export const hasCut = (value) => value !== null && typeof value === "object" && (isCut(value) || Object.values(value).some(hasCut));

export class Recording {
  /** @type {import("./fold.js").Row[]} */
  rows = [];
  /** Seconds of live time of each row: those in which a run lay cut off do not count. */
  times = [];
  /** Whether nothing more will come: a run that has not ended then was cut off. */
  over = false;
  /** Numbers of the first and the last of the events that the page is not given; one row stands for them. @type {{from: number, to: number}|null} */
  leftOut = null;
  #dead = 0;
  #last = 0; // seconds since the epoch of the last row at which the run was at work
  #newest = new Fold();
  #every = EVERY;
  #kept = [emptyState()]; // after 0, #every, 2·#every … rows
  #cursor = { at: 0, fold: new Fold() };
  #cut = null; // the newest state, and the one in its place

  get count() { return this.rows.length; }
  /** Number of the last event. */
  get seq() { return this.rows.length ? this.rows.at(-1)[0] : 0; }
  get end() { return this.times.at(-1) ?? 0; }

  /** Takes rows in; those that are here already are known, or come again whole. @returns {number[]} positions of rows that have changed */
  push(rows) {
    const changed = [];
    for (const row of rows) {
      if (row[0] > this.seq) this.#add(row);
      else {
        const at = this.positionOf(row[0]) - 1;
        if (at < 0 || this.rows[at][0] !== row[0] || !hasCut(this.rows[at][4])) continue;
        this.rows[at] = row;
        changed.push(at);
      }
    }
    if (changed.length) this.#again(Math.min(...changed));
    return changed;
  }

  #add(row) {
    const resumed = row[1] === "execution_started" && this.count > 0;
    if (row[1] === LEFT_OUT) { this.leftOut = { from: row[4].from, to: row[0] }; this.#dead = row[2] - this.rows[0][2] - row[4].time; }
    if (resumed) this.#dead += row[2] - this.#last; // negative where the clock was set back
    // A note may come days after the end.
    const still = !resumed && this.#newest.state.ended !== null, time = still ? this.end : Math.max(this.end, row[2] - (this.rows[0] ?? row)[2] - this.#dead);
    if (!still) this.#last = row[2];
    this.rows.push(row);
    this.times.push(time);
    this.#newest.take(row, time);
    this.#keep(this.count);
  }

  /** Keeps the newest state, if it is one of those that are kept. @param {number} position rows that are in it */
  #keep(position) {
    if (position % this.#every) return;
    this.#kept.push(this.#newest.give());
    if (this.#kept.length <= KEPT) return;
    this.#kept = this.#kept.filter((_, i) => i % 2 === 0);
    this.#every *= 2;
  }

  /** A row has changed: what was folded from it is folded again. */
  #again(from) {
    const frame = Math.floor(from / this.#every);
    this.#kept.length = frame + 1;
    this.#newest = new Fold(this.#kept[frame]);
    for (let i = frame * this.#every; i < this.count; i++) {
      this.#newest.take(this.rows[i], this.times[i]);
      this.#keep(i + 1);
    }
    this.#cursor = { at: 0, fold: new Fold() };
  }

  /** The state after the first `position` rows. @returns {import("./fold.js").State} */
  stateAt(position) {
    if (position >= this.count) return this.over ? this.#cutOff() : this.#newest.give();
    const c = this.#cursor;
    if (c.at > position || position - c.at > this.#every) {
      const frame = Math.floor(position / this.#every);
      c.at = frame * this.#every;
      c.fold = new Fold(this.#kept[frame]);
    }
    for (; c.at < position; c.at++) c.fold.take(this.rows[c.at], this.times[c.at]);
    return c.fold.give();
  }

  #cutOff() {
    const last = this.#newest.give();
    if (last.status !== "running") return last;
    if (this.#cut?.[0] !== last) {
      const fold = new Fold(last);
      fold.cutOff();
      this.#cut = [last, fold.give()];
    }
    return this.#cut[1];
  }

  /** How many rows have happened at a time. @param {number} time */
  positionAt(time) { return this.#before((i) => this.times[i] <= time); }

  /** How many rows there are up to an event; one that is left out is in the row that stands for it. @param {number} seq */
  positionOf(seq) { return this.#before((i) => (this.rows[i][1] === LEFT_OUT ? this.rows[i][4].from : this.rows[i][0]) <= seq); }

  #before(fits) {
    let low = 0, high = this.count;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (fits(mid)) low = mid + 1;
      else high = mid;
    }
    return low;
  }
}
