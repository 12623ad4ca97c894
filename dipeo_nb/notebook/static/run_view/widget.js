// The views of one kernel in a page. The kernel has one widget, which is shown nowhere; what stands in the notebook is the static face of a
// run, in an element that names the widget and the run. Wherever such an element comes into the page (a cell, an Output widget, a
// second tab, after a reload), the view is put before it and the face is hidden. So a saved notebook holds plain HTML that needs no kernel,
// nothing is replaced when a run ends, and the keyboard stays where it is.
import { createChatView } from "./chat.js";
import { createRunView } from "./main.js";
import { createRunTable } from "./run_table.js";
import { tr } from "./strings.js";

const SILENCE_MS = 6000; // the kernel speaks once a second while a run goes on; silence means that it is gone
const PATIENCE_MS = 3000; // for an answer to a question about what is missing; twice as long each time
const DOUBLINGS = 4; // of that, at most
const ORDER_MS = 30_000; // for what was ordered: another run may need a diagram to be read and checked
const GRACE_MS = 30_000; // a view that Lab has taken off the page, as it does with cells out of sight, is kept for so long
const CREATE = { run: createRunView, chat: createChatView, table: createRunTable };

/** What a page knows of one run, chat or table, and the views it has of it. */
class Subject {
  views = new Set();
  head = null;
  parts = []; // what was told of it so far; a view that comes later takes it from here
  last = 0;
  now = null;
  live = false;
  whole = false; // whether all that had happened when it was asked for is here
  asked = 0; // when what is missing was asked for
  tries = 0; // how often in a row without anything that came of it
}

class Page {
  #model; #token;
  #name = `p${Math.random().toString(36).slice(2)}`; // other pages of the kernel get the same messages
  #subjects = new Map();
  #mounts = new Set(); // {covered: the element, id, host, stack: where its views stand, view, lost, and where that is in Lab: area, place, next}
  #marks; #observer; #ticking;
  #shown = new Set(); // elements in which a front end displays the widget itself; marimo closes them off from the page
  #heard = performance.now();
  #gone = false;
  #probed = 0; // when a kernel that is silent was asked whether it is there
  #requests = 0;
  #waiting = new Map(); // number of a request → {resolve, reject}
  #dropped = new Set(); // ids of which the kernel knows nothing any more: what is in the page of them stays as it is
  #ordered = new Set(); // ids of runs that were ordered in this page, and whose view is to come

  constructor(model) {
    this.#model = model;
    this.#token = model.get("token");
    this.#marks = document.getElementsByClassName(`dipeo-of-${this.#token}`);
    model.on("msg:custom", this.#take);
    model.on("comm_live_update", this.#doubt);
    this.#observer = new MutationObserver(() => this.#look());
    this.#observer.observe(document.body, { childList: true, subtree: true });
    this.#ticking = setInterval(() => this.#tick(), 1000);
    this.#look();
  }

  close() {
    this.#observer.disconnect();
    clearInterval(this.#ticking);
    this.#model.off("msg:custom", this.#take);
    this.#model.off("comm_live_update", this.#doubt);
    for (const mount of [...this.#mounts]) this.#uncover(mount);
  }

  /** Shows a subject inside an element of a front end that displays widgets itself. */
  show(id, element) {
    const mark = document.createElement("div");
    mark.className = `dipeo-of-${this.#token} dipeo-shows-${id}`;
    element.append(mark);
    this.#shown.add(mark);
    this.#look();
  }

  #all() { return new Set([...this.#marks, ...[...this.#shown].filter((mark) => mark.isConnected)]); }

  // Elements of the page.

  #look() {
    const shown = new Map(); // element → the ids that it shows, from top to bottom: a run, and those that were made from it
    for (const mark of this.#all()) {
      const id = /(?:^| )dipeo-shows-(\S+)/.exec(mark.className)?.[1], covered = mark.closest(".dipeo-place, .jp-OutputArea-output") ?? mark;
      if (id) shown.set(covered, [...(shown.get(covered) ?? []), id]);
    }
    for (const mount of [...this.#mounts]) {
      const ids = shown.get(mount.covered);
      if (ids?.includes(mount.id)) mount.lost = 0;
      else if (ids) this.#uncover(mount);
    }
    for (const [covered, ids] of shown) for (const id of ids) {
      if (this.#dropped.has(id) || this.#mountOf(covered, id)) continue;
      const subject = this.#subjects.get(id) ?? this.#begin(id);
      if (subject.whole) this.#cover(covered, id, subject, ids);
    }
    for (const mount of this.#mounts) if (!mount.covered.isConnected) this.#leave(mount);
  }

  #mountOf(covered, id) { return [...this.#mounts].find((mount) => mount.covered === covered && mount.id === id); }

  /** Lab draws an output of another type in a new element, which is empty at first: until it is not, the view stands there. */
  #leave(mount) {
    if (!mount.lost) {
      mount.lost = performance.now();
      const next = mount.area?.isConnected && mount.area.children[mount.place]?.querySelector(".jp-OutputArea-output");
      if (next && !next.hasChildNodes()) {
        mount.next = next;
        next.before(mount.stack);
        next.classList.add("dipeo-covered");
      }
    } else if (mount.next?.hasChildNodes()) {
      this.#show(mount.next);
      mount.next = null;
      mount.stack.remove();
    }
  }

  #begin(id) {
    const subject = new Subject();
    this.#subjects.set(id, subject);
    this.#ask(id, subject);
    return subject;
  }

  #cover(covered, id, subject, ids) {
    const host = document.createElement("div"), stack = ids.map((other) => this.#mountOf(covered, other)?.stack).find(Boolean) ?? document.createElement("div");
    stack.className = "dipeo-host";
    // Lab draws the inside of an output anew whenever its data changes: the views stand beside it.
    if (covered.matches(".jp-OutputArea-output")) stack.classList.add("jp-OutputArea-output");
    if (!stack.isConnected) covered.before(stack);
    stack.insertBefore(host, ids.slice(ids.indexOf(id) + 1).map((other) => this.#mountOf(covered, other)?.host).find(Boolean) ?? null);
    covered.classList.add("dipeo-covered");
    // The same object for all views: what the kernel allows changes while they are there.
    const view = CREATE[subject.head.kind](host, { head: subject.head, host: { send: (message) => this.#send(id, message), ask: (order) => this.#order(id, order, covered) } });
    const area = covered.closest(".jp-OutputArea"), place = area ? [...area.children].findIndex((child) => child.contains(covered)) : -1;
    this.#mounts.add({ covered, id, host, stack, view, lost: 0, area, place, next: null });
    subject.views.add(view);
    for (const part of subject.parts) view.push(part);
    if (subject.now !== null) view.now(subject.now);
    if (!subject.live) view.ended();
    if (this.#gone) view.gone();
    if (this.#ordered.delete(id)) {
      host.scrollIntoView({ block: "nearest" });
      view.focus();
    }
    // Lab's single-key commands (x cuts the cell) must not see what is typed here; Tab and Ctrl/Cmd keys pass.
    host.addEventListener("keydown", (event) => {
      if (!(event.ctrlKey || event.metaKey || event.key === "Tab" || (event.shiftKey && event.key === "Enter"))) event.stopPropagation();
    });
  }

  #uncover(mount) {
    const { covered, id, host, stack, view, next } = mount;
    this.#mounts.delete(mount);
    this.#subjects.get(id)?.views.delete(view);
    view.dispose();
    host.remove();
    if (!stack.hasChildNodes()) stack.remove();
    this.#show(covered);
    if (next) this.#show(next);
  }

  /** Shows an output again, unless a view stands over it. */
  #show(output) {
    if (![...this.#mounts].some((mount) => mount.covered === output)) output.classList.remove("dipeo-covered");
  }

  // Messages.

  #send(id, message) {
    if (message.type === "since") this.#ask(id, this.#subjects.get(id));
    else this.#say({ ...message, of: id });
  }

  /** Has something done in the kernel, and waits for what comes of it. */
  async #order(id, order, covered) {
    const request = this.#requests++, found = await new Promise((resolve, reject) => {
      this.#waiting.set(request, { resolve, reject });
      setTimeout(() => this.#answered({ request, error: tr("widget.silent") }), ORDER_MS);
      this.#say({ type: "order", of: id, order, request });
    });
    if (found.shows) this.#expect(found.shows, covered);
    return found;
  }

  #answered({ request, found, error, listing, pin }) {
    const waiting = this.#waiting.get(request);
    this.#waiting.delete(request);
    if (found) waiting?.resolve(found);
    else waiting?.reject(Object.assign(new Error(error ?? tr("widget.unable")), { listing, pin }));
  }

  /** A run that was ordered here: it gets the keyboard when its view comes, below the one that it was ordered in. */
  #expect(id, covered) {
    const mount = this.#mountOf(covered, id);
    if (mount) mount.view.focus();
    else this.#ordered.add(id);
    if (covered.matches(".jp-OutputArea-output")) return; // its mark comes with what the notebook holds
    const place = document.createElement("div");
    place.className = "dipeo-place"; // within an output that holds more than this
    covered.after(place);
    this.show(id, place);
  }

  #say(message) {
    try {
      this.#model.send({ ...message, page: this.#name });
    } catch (error) { // the kernel has been restarted or shut down
      console.info("dipeo_nb: the kernel of this view is gone.", error);
      this.#lose();
    }
  }

  #ask(id, subject) {
    if (!subject || (subject.asked && performance.now() - subject.asked < this.#patience(subject))) return;
    subject.tries = subject.asked ? Math.min(subject.tries + 1, DOUBLINGS) : 0;
    subject.asked = performance.now();
    this.#say({ type: "since", of: id, seq: subject.last });
  }

  #patience(subject) { return PATIENCE_MS * 2 ** subject.tries; }

  #take = (message) => {
    this.#heard = performance.now();
    if (this.#gone) {
      this.#gone = false;
      for (const { id, view } of this.#mounts) view.now(this.#subjects.get(id)?.now ?? 0);
    }
    if (message.type === "tick") {
      for (const part of message.parts) {
        const subject = this.#subjects.get(part.id);
        if (subject && part.head) { this.#know(subject, part); continue; } // all of it, unasked
        if (!subject || subject.asked) continue; // unknown here, or all of it is on its way
        if (part.after > subject.last) this.#ask(part.id, subject);
        else this.#add(subject, part);
      }
      for (const [id, seconds] of Object.entries(message.now ?? {})) {
        const subject = this.#subjects.get(id);
        if (!subject) continue;
        subject.now = seconds;
        for (const view of subject.views) view.now(seconds);
      }
      // What goes on says so in each of these: of one that does not, the end was lost.
      if (message.now) for (const [id, subject] of this.#subjects) if (subject.live && !subject.asked && !Object.hasOwn(message.now, id)) this.#ask(id, subject);
    } else if (message.to === this.#name) this.#reply(message);
    else if (message.type === "dropped") this.#drop(message.id);
    else if (message.type === "again" && this.#dropped.delete(message.id)) this.#look();
  };

  #reply(message) {
    const subject = this.#subjects.get(message.id);
    if (!subject) return;
    if (message.type === "face") return this.#save(message.id, message.data, message.metadata);
    if (message.type === "order") return this.#answered(message);
    if (message.type === "body") {
      subject.parts.push(message.rows);
      for (const view of subject.views) view.push(message.rows);
      return;
    }
    if (message.unknown) return this.#drop(message.id);
    if (message.done) {
      if (message.after <= subject.last) return this.#know(subject, message);
      subject.asked = 0; // a part of the answer was lost
      return this.#ask(message.id, subject);
    }
    subject.head ??= message.head;
    this.#add(subject, message);
    subject.asked = performance.now();
    subject.tries = 0;
  }

  /** With this message, all that has happened is here. */
  #know(subject, message) {
    subject.head ??= message.head;
    this.#add(subject, message);
    subject.asked = 0;
    if (subject.whole) return;
    subject.whole = true;
    this.#look();
  }

  #add(subject, part) {
    // What begins elsewhere belongs to the answer to an earlier question: a row may stand for several events, some of which are here.
    if (part.rows !== undefined && part.after === subject.last && part.last > subject.last) {
      subject.last = part.last;
      subject.parts.push(part.rows);
      for (const view of subject.views) view.push(part.rows);
    }
    if (part.fresh !== undefined) { // a whole that replaces what was there
      subject.last = part.last;
      subject.parts = [part.fresh];
      for (const view of subject.views) view.push(part.fresh);
    }
    if (part.can && subject.head) {
      subject.head.can = part.can;
      for (const view of subject.views) view.push([]);
    }
    if (part.now !== undefined) {
      subject.now = part.now;
      for (const view of subject.views) view.now(part.now);
    }
    if (part.live !== undefined && part.live !== subject.live) {
      subject.live = part.live;
      if (!part.live) for (const view of subject.views) view.ended();
    }
    if (part.live === false) setTimeout(() => this.#settle(), PATIENCE_MS / 2);
  }

  #drop(id) {
    this.#subjects.delete(id);
    this.#dropped.add(id);
    for (const mount of [...this.#mounts]) if (mount.id === id) this.#uncover(mount);
  }

  // The saved notebook.

  /** The kernel replaces the faces of what has ended; it does not reach a page that was loaded since. */
  #settle() {
    for (const mark of this.#marks) {
      const id = /(?:^| )dipeo-shows-(\S+)/.exec(mark.className)?.[1];
      if (mark.classList.contains("dipeo-final") || !this.#subjects.get(id) || this.#subjects.get(id).live || !this.#notebook()) continue;
      this.#say({ type: "face", of: id });
    }
  }

  #notebook() { return this.#model.widget_manager?.context?.model?.cells ?? null; }

  #save(id, data, metadata) {
    for (const cell of this.#notebook() ?? []) {
      for (let i = 0; i < (cell.outputs?.length ?? 0); i++) {
        const output = cell.outputs.get(i).toJSON();
        const html = String(output.data?.["text/html"] ?? "");
        if (!html.includes(`dipeo-of-${this.#token} dipeo-shows-${id}"`)) continue;
        cell.outputs.set(i, { ...output, data, metadata });
      }
    }
  }

  // The life of the kernel.

  #tick() {
    const now = performance.now();
    for (const mount of [...this.#mounts]) if (mount.lost && now - mount.lost > GRACE_MS && !mount.covered.isConnected) this.#uncover(mount);
    const [id, live] = [...this.#subjects].find(([, subject]) => subject.live) ?? [];
    if (live && now - this.#heard > SILENCE_MS) {
      if (!this.#gone) this.#lose();
      if (now - this.#probed > SILENCE_MS) { // where all has ended meanwhile, a kernel that is back says nothing unasked
        this.#probed = now;
        this.#ask(id, live);
      }
    }
    if (this.#gone) return;
    for (const [other, subject] of this.#subjects) if (subject.asked && now - subject.asked > this.#patience(subject)) this.#ask(other, subject);
  }

  #lose() {
    this.#gone = true;
    for (const { view } of this.#mounts) view.gone();
  }

  /** The connection has changed: it is over, or there is a new one to the same kernel, which then answers. */
  #doubt = () => {
    this.#lose();
    for (const [id, subject] of this.#subjects) {
      subject.asked = 0;
      this.#ask(id, subject);
    }
  };
}

const pages = new Map();

export default {
  initialize({ model }) {
    const page = new Page(model);
    pages.set(model.get("token"), page);
    return () => {
      pages.delete(model.get("token"));
      page.close();
    };
  },
  render({ model, el }) {
    pages.get(model.get("token"))?.show(model.get("shows"), el);
  },
};
