// The report page: theme, charts, and galleries of clips with their response maps.
// All data come from the JSON in #data. Titles, labels and clip ids are inserted as text, never as markup.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);

// ---------------------------------------------------------------- small helpers

/** Create an element with properties and children (strings become text). */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

function makeSvg(tag, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  return element;
}

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function floatsOf(base64) {
  const view = new DataView(bytesOf(base64).buffer);
  const values = new Float32Array(view.byteLength / 4);
  for (let i = 0; i < values.length; i++) values[i] = view.getFloat32(4 * i, true);
  return values;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// ---------------------------------------------------------------- theme

function startTheme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  // Browsers may deny storage to pages opened as files; the choice is then lost when the page is closed.
  const remembered = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  let chosen = remembered === "dark" || remembered === "light" ? remembered : null;
  const apply = () => {
    const dark = chosen ? chosen === "dark" : system.matches;
    if (chosen) document.documentElement.dataset.theme = chosen;
    button.setAttribute("aria-pressed", String(dark));
  };
  button.addEventListener("click", () => {
    chosen = button.getAttribute("aria-pressed") === "true" ? "light" : "dark";
    try { localStorage.setItem("theme", chosen); } catch { /* see above */ }
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}

// ---------------------------------------------------------------- response maps

const PALETTE = bytesOf(DATA.palette);

/** Upsample a map's cells (bytes) with the protocol's weights at every `step`-th pixel: Float32Array (n × n), n = size / step. */
function upsample(gallery, cells, rows, columns, step) {
  const n = Math.floor(gallery.size / step);
  const offset = Math.floor(step / 2);
  const down = gallery.weights[rows], across = gallery.weights[columns];
  // The weights are separable: first across each row of cells, then down the columns.
  const half = new Float32Array(rows * n);
  for (let r = 0; r < rows; r++) {
    for (let x = 0; x < n; x++) {
      const from = (x * step + offset) * columns;
      let sum = 0;
      for (let c = 0; c < columns; c++) sum += across[from + c] * cells[r * columns + c];
      half[r * n + x] = sum / 255;
    }
  }
  const values = new Float32Array(n * n);
  for (let y = 0; y < n; y++) {
    const from = (y * step + offset) * rows;
    for (let r = 0; r < rows; r++) {
      const weight = down[from + r];
      if (weight === 0) continue;
      for (let x = 0; x < n; x++) values[y * n + x] += weight * half[r * n + x];
    }
  }
  return values;
}

const scratch = document.createElement("canvas");

/** Draw a map over the canvas. Weak responses are more transparent, so that the frame stays recognizable. */
function drawHeat(context, values, n, side, opacity) {
  scratch.width = scratch.height = n;
  const inner = scratch.getContext("2d");
  const image = inner.createImageData(n, n);
  for (let i = 0; i < n * n; i++) {
    const value = clamp(values[i], 0, 1);
    const color = 3 * Math.round(255 * value);
    image.data[4 * i] = PALETTE[color];
    image.data[4 * i + 1] = PALETTE[color + 1];
    image.data[4 * i + 2] = PALETTE[color + 2];
    image.data[4 * i + 3] = 255 * opacity * (0.15 + 0.85 * value);
  }
  inner.putImageData(image, 0, 0);
  context.drawImage(scratch, 0, 0, side, side);
}

/** Outline the pixels above `level` with marching squares; everything outside the frame counts as below. */
function drawOutline(context, values, n, side, level, inclusive, width) {
  const inside = (x, y) => {
    if (x < 0 || y < 0 || x >= n || y >= n) return false;
    const value = values[y * n + x];
    return inclusive ? value >= level : value > level;
  };
  const scale = side / n;
  const place = (i) => clamp((i + 0.5) * scale, 0, side);
  const crossing = (x0, y0, x1, y1) => {
    const beyond = (x, y) => x < 0 || y < 0 || x >= n || y >= n;
    if (beyond(x0, y0)) return [place(x0), place(y0)];
    if (beyond(x1, y1)) return [place(x1), place(y1)];
    const a = values[y0 * n + x0], b = values[y1 * n + x1];
    const t = a === b ? 0.5 : clamp((level - a) / (b - a), 0, 1);
    return [place(x0 + t * (x1 - x0)), place(y0 + t * (y1 - y0))];
  };
  context.beginPath();
  for (let y = -1; y < n; y++) {
    for (let x = -1; x < n; x++) {
      const corners = [inside(x, y), inside(x + 1, y), inside(x + 1, y + 1), inside(x, y + 1)];
      if (corners.every((each) => each === corners[0])) continue;
      const points = [];
      if (corners[0] !== corners[1]) points.push(crossing(x, y, x + 1, y));
      if (corners[1] !== corners[2]) points.push(crossing(x + 1, y, x + 1, y + 1));
      if (corners[3] !== corners[2]) points.push(crossing(x, y + 1, x + 1, y + 1));
      if (corners[0] !== corners[3]) points.push(crossing(x, y, x, y + 1));
      for (let i = 0; i + 1 < points.length; i += 2) {
        context.moveTo(...points[i]);
        context.lineTo(...points[i + 1]);
      }
    }
  }
  context.lineCap = "round";
  context.strokeStyle = "rgba(0, 0, 0, 0.55)";
  context.lineWidth = width * 2;
  context.stroke();
  context.strokeStyle = "#56b4e9";
  context.lineWidth = width;
  context.stroke();
}

function drawBoxes(context, boxes, side, width) {
  for (const [x0, y0, x1, y1, sounding] of boxes) {
    const shape = [x0 * side, y0 * side, (x1 - x0) * side, (y1 - y0) * side];
    context.setLineDash(sounding ? [] : [4 * width, 3 * width]);
    // A dark line below the white one keeps the box visible on any background.
    context.strokeStyle = "rgba(0, 0, 0, 0.7)";
    context.lineWidth = 2.2 * width;
    context.strokeRect(...shape);
    context.strokeStyle = "#ffffff";
    context.lineWidth = width;
    context.strokeRect(...shape);
  }
  context.setLineDash([]);
}

// ---------------------------------------------------------------- galleries

class Gallery {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.name = root.dataset.gallery;
    this.part = (role) => root.querySelector(`[data-role="${role}"]`);
    this.radios = [...root.querySelectorAll(`input[name="${this.name}-method"]`)];
    data.weights = Object.fromEntries(Object.entries(data.matrices).map(([side, text]) => [side, floatsOf(text)]));
    this.cells = data.clips.map((clip) => clip.maps.map((epochs) => epochs.map(bytesOf)));
    this.order = data.clips.map((_, i) => i);
    this.current = 0;
  }

  async start() {
    this.frames = await Promise.all(this.data.clips.map(async (clip) => {
      const image = new Image();
      image.src = clip.frame;
      await image.decode();
      return image;
    }));
    this.cards = this.data.clips.map((clip, i) => this.makeCard(clip, i));
    this.strip = this.data.methods.map((method, m) => this.makeStrip(method, m));
    this.part("strip").append(...this.strip.map((each) => each.button));
    this.listen();
    this.list();
    this.show(this.order[0]);
  }

  // State of the controls.
  get method() { return Number(this.radios.find((radio) => radio.checked).value); }
  get opacity() { return Number(this.part("opacity").value) / 100; }
  get measured() { return this.method < 0 ? this.data.shown : this.method; }

  /** Index of the displayed epoch in a method's own list, which may be shorter than the slider. */
  epoch(method) { return Math.min(Number(this.part("epoch").value), this.data.methods[method].epochs.length - 1); }

  /** The number that clips are sorted and filtered by. It is that of the last epoch, so the list stays put while the slider moves. */
  measure(clip) { return this.name === "scored" ? clip.scores[this.measured].at(-1) : this.change(clip); }
  change(clip) { return clip.change[this.measured]; }

  /** The number that belongs to the displayed map. */
  value(clip, method) {
    const epoch = this.epoch(method);
    return this.name === "scored" ? clip.scores[method][epoch].toFixed(2) : percent(clip.facts[method][epoch][0], 0);
  }

  makeCard(clip, i) {
    const canvas = make("canvas", { width: 160, height: 160, "aria-hidden": "true" });
    const value = make("b");
    const button = make("button", { type: "button", tabIndex: -1 }, canvas, make("span", {}, clip.label || clip.id), value);
    button.addEventListener("click", () => this.show(i));
    button.addEventListener("focus", () => { Gallery.last = this; });
    return { item: make("li", {}, button), button, canvas, value };
  }

  makeStrip(method, m) {
    const canvas = make("canvas", { width: 160, height: 160, "aria-hidden": "true" });
    const value = make("b");
    const button = make("button", { type: "button" }, canvas, make("span", {}, method.label), value);
    button.addEventListener("click", () => { this.radios[m].checked = true; this.redraw(true); });
    return { button, canvas, value };
  }

  listen() {
    this.root.addEventListener("pointerdown", () => { Gallery.last = this; });
    for (const radio of this.radios) radio.addEventListener("change", () => this.redraw(true));
    for (const role of ["boxes", "outline", "opacity", "epoch"]) this.part(role)?.addEventListener("input", () => this.redraw());
    for (const role of ["sort", "label", "result"]) this.part(role)?.addEventListener("change", () => this.relist());
    for (const role of ["low", "high"]) this.part(role).addEventListener("input", () => this.relist());
    this.part("reset").addEventListener("click", () => this.reset());
    this.part("previous").addEventListener("click", () => this.step(-1));
    this.part("next").addEventListener("click", () => this.step(1));
    this.part("play")?.addEventListener("click", () => this.play());
    const audio = this.part("audio");
    audio.addEventListener("timeupdate", () => this.moveHead());
    audio.addEventListener("play", () => { const run = () => { this.moveHead(); if (!audio.paused) requestAnimationFrame(run); }; run(); });
  }

  reset() {
    for (const role of ["label", "result"]) if (this.part(role)) this.part(role).value = "all";
    this.part("sort").selectedIndex = 0;
    this.part("low").value = 0;
    this.part("high").value = 100;
    this.relist();
  }

  /** Range of the filter; for changes, the slider ends at the largest change. */
  get range() {
    const full = this.name === "scored" ? 1 : Math.max(1e-6, ...this.data.clips.flatMap((clip) => clip.change));
    const at = (role) => (Number(this.part(role).value) / 100) * full;
    return [at("low"), at("high")];
  }

  list() {
    const { clips, threshold } = this.data;
    const [low, high] = this.range;
    const chosen = (role) => this.part(role)?.value ?? "all";
    for (const [role, value] of [["low", low], ["high", high]]) this.part(role).nextElementSibling.value = value.toFixed(2);
    const kept = clips.map((_, i) => i).filter((i) => {
      const value = this.measure(clips[i]);
      if (value < low - 1e-9 || value > high + 1e-9) return false;
      if (chosen("label") !== "all" && chosen("label") !== `=${clips[i].label}`) return false;
      return chosen("result") === "all" || (chosen("result") === "success") === (value >= threshold);
    });
    const keys = {
      best: (clip) => -this.measure(clip),
      worst: (clip) => this.measure(clip),
      changed: (clip) => -this.change(clip),
      settled: (clip) => this.change(clip),
      name: () => 0,
    };
    const key = keys[this.part("sort").value];
    this.order = kept.sort((a, b) => key(clips[a]) - key(clips[b]) || (clips[a].id < clips[b].id ? -1 : 1));
    this.part("cards").replaceChildren(...this.order.map((i) => this.cards[i].item));
    this.part("count").textContent = this.order.length
      ? `${this.order.length} of ${clips.length} clips. ${this.name === "scored" ? "Cards show the cIoU of the displayed map; sorting and filters use the last epoch." : "Cards show how much the map changed."}`
      : "No clips match these filters.";
  }

  relist() {
    this.list();
    if (this.order.length && !this.order.includes(this.current)) this.current = this.order[0];
    this.show(this.current);
  }

  /** Redraw after a control changed. Another method has other scores, so the list may change too. */
  redraw(methodChanged = false) {
    if (methodChanged) this.relist();
    else this.show(this.current);
  }

  draw(canvas, i, method, small) {
    const { clips, methods, levels, inclusive, size } = this.data;
    const clip = clips[i];
    const side = canvas.width;
    const context = canvas.getContext("2d");
    const line = small ? 2 : 3;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.frames[i], 0, 0, side, side);
    if (method >= 0) {
      const step = small ? Math.max(1, Math.round(size / 96)) : 1;
      const n = Math.floor(size / step);
      const epoch = this.epoch(method);
      const values = upsample(this.data, this.cells[i][method][epoch], methods[method].rows, methods[method].columns, step);
      drawHeat(context, values, n, side, this.opacity);
      const level = (clip.levels ?? levels)[method][epoch];
      if (this.part("outline").checked) drawOutline(context, values, n, side, level, inclusive, line);
    }
    if (clip.boxes && this.part("boxes").checked) drawBoxes(context, clip.boxes, side, line);
  }

  show(i) {
    if (i === undefined) return;
    const changed = this.shownClip !== i;
    this.current = this.shownClip = i;
    const clip = this.data.clips[i];
    const opacity = this.part("opacity");
    opacity.nextElementSibling.value = `${opacity.value}%`;
    for (const [j, card] of this.cards.entries()) this.drawCard(j, card);
    this.draw(this.part("view"), i, this.method, false);
    this.describe(clip);
    for (const [m, each] of this.strip.entries()) {
      this.draw(each.canvas, i, m, true);
      each.value.textContent = this.value(clip, m);
      each.button.setAttribute("aria-pressed", String(m === this.method));
    }
    if (changed) this.load(clip);
  }

  /** Everything that the image on a card depends on. */
  get drawn() { return [this.method, this.part("epoch").value, this.opacity, this.part("boxes")?.checked, this.part("outline").checked].join(); }

  drawCard(j, card) {
    const { button, canvas, value, item } = card;
    const clip = this.data.clips[j];
    const current = j === this.current;
    button.tabIndex = current || (!this.order.includes(this.current) && j === this.order[0]) ? 0 : -1;
    button.setAttribute("aria-current", String(current));
    value.textContent = this.name === "scored" ? this.value(clip, this.measured) : this.change(clip).toFixed(2);
    const what = this.name === "scored" ? "cIoU" : "change";
    button.setAttribute("aria-label", `${clip.id}${clip.label ? `, ${clip.label}` : ""}, ${what} ${value.textContent}`);
    if (this.name === "scored") item.classList.toggle("failure", clip.scores[this.measured][this.epoch(this.measured)] < this.data.threshold);
    // Selecting another clip changes no card's image.
    if (this.order.includes(j) && card.drawn !== this.drawn) {
      this.draw(canvas, j, this.method, true);
      card.drawn = this.drawn;
    }
  }

  describe(clip) {
    const { methods, threshold } = this.data;
    const method = this.method < 0 ? null : methods[this.method];
    const { epochs } = methods[this.measured];
    const epoch = this.epoch(this.measured);
    this.part("title").replaceChildren(clip.id, ...(clip.label ? [make("span", { className: "chip" }, clip.label)] : []));
    const facts = [];
    if (this.name === "scored") {
      const score = clip.scores[this.measured][epoch];
      facts.push(`cIoU ${score.toFixed(3)} (${score >= threshold ? "success" : "failure"} at threshold ${threshold})`);
      const sounding = clip.boxes.filter((box) => box[4]).map((box) => box[5]).filter(Boolean);
      if (sounding.length) facts.push(`sounding: ${[...new Set(sounding)].join(", ")}`);
    } else {
      const [share, iou] = clip.facts[this.measured][epoch];
      facts.push(`sounding region: ${percent(share, 1)} of the frame`);
      if (iou !== null) facts.push(`IoU with the previous map: ${iou.toFixed(2)}`);
    }
    facts.push(`changed by ${this.change(clip).toFixed(3)} from first to last epoch`);
    this.part("epoch-text").value = `epoch ${epochs[epoch]} of ${epochs.at(-1)}`;
    this.part("epoch").setAttribute("aria-valuetext", this.part("epoch-text").value);
    this.part("facts").textContent = `${facts.join("; ")}.`;
    const map = method ? `with the response map of ${method.label}` : "without a map";
    this.part("view").setAttribute("aria-label", `Frame of ${clip.id} ${map} after epoch ${epochs[epoch]}`);
  }

  load(clip) {
    const audio = this.part("audio");
    const mel = this.part("mel");
    mel.src = clip.mel;
    mel.alt = `Log-mel spectrogram of ${clip.id}`;
    this.part("note").textContent = clip.note;
    audio.hidden = !clip.audio;
    audio.setAttribute("aria-label", `Audio of ${clip.id}`);
    if (clip.audio) audio.src = clip.audio;
    else audio.removeAttribute("src");
    this.moveHead();
  }

  moveHead() {
    const audio = this.part("audio");
    const share = audio.duration > 0 ? audio.currentTime / audio.duration : 0;
    const head = this.part("head");
    head.hidden = share === 0;
    head.style.left = `${100 * share}%`;
  }

  // ---- navigation

  step(by) {
    if (!this.order.length) return;
    const place = this.order.indexOf(this.current);
    this.go(place < 0 ? 0 : clamp(place + by, 0, this.order.length - 1));
  }

  go(place) {
    const focused = this.part("cards").contains(document.activeElement);
    this.show(this.order[place]);
    const button = this.cards[this.current].button;
    if (focused) button.focus({ preventScroll: true });
    // Scroll the list only, not the page, so that the selected clip stays in view.
    const list = this.part("cards").parentElement, box = button.getBoundingClientRect(), frame = list.getBoundingClientRect();
    if (box.top < frame.top) list.scrollTop -= frame.top - box.top + 8;
    else if (box.bottom > frame.bottom) list.scrollTop += box.bottom - frame.bottom + 8;
  }

  /** Number of cards per row. */
  get perRow() {
    const tops = this.order.map((i) => this.cards[i].item.offsetTop);
    return Math.max(1, tops.filter((top) => top === tops[0]).length);
  }

  nudge(role, by) {
    const input = this.part(role);
    if (!input) return;
    input.value = Number(input.value) + by;
    input.dispatchEvent(new Event("input"));
  }

  flip(role) {
    const input = this.part(role);
    if (!input) return;
    input.checked = !input.checked;
    input.dispatchEvent(new Event("input"));
  }

  play() {
    const button = this.part("play"), slider = this.part("epoch");
    const stop = () => { clearInterval(this.timer); this.timer = null; button.textContent = "▶"; button.setAttribute("aria-label", "Play epochs"); };
    if (this.timer) { stop(); return; }
    if (slider.value === slider.max) slider.value = 0;
    else slider.value = Number(slider.value) + 1;
    this.redraw();
    button.textContent = "❚❚";
    button.setAttribute("aria-label", "Stop");
    this.timer = setInterval(() => {
      if (slider.value === slider.max) stop();
      else this.nudge("epoch", 1);
    }, 700);
  }

  toggleAudio() {
    const audio = this.part("audio");
    if (audio.hidden) return;
    if (audio.paused) audio.play();
    else audio.pause();
  }

  /** Handle a key. Returns whether the key has a meaning here. */
  key(key) {
    const actions = {
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      ArrowUp: () => this.step(-this.perRow),
      ArrowDown: () => this.step(this.perRow),
      Home: () => this.go(0),
      End: () => this.go(this.order.length - 1),
      m: () => { const next = (this.radios.findIndex((radio) => radio.checked) + 1) % this.radios.length; this.radios[next].checked = true; this.redraw(true); },
      "[": () => this.nudge("epoch", -1),
      "]": () => this.nudge("epoch", 1),
      "-": () => this.nudge("opacity", -10),
      "+": () => this.nudge("opacity", 10),
      "=": () => this.nudge("opacity", 10),
      b: () => this.flip("boxes"),
      o: () => this.flip("outline"),
      p: () => this.toggleAudio(),
    };
    const action = actions[key.length === 1 ? key.toLowerCase() : key];
    if (!action || !this.order.length) return false;
    action();
    return true;
  }
}
Gallery.last = null;

function percent(share, digits) { return `${(100 * share).toFixed(digits)}%`; }

function startKeys(galleries) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target;
    const own = galleries.find((gallery) => gallery.root.contains(target));
    const gallery = own || (target === document.body ? Gallery.last : null);
    if (!gallery) return;
    // Sliders, menus and radio buttons keep their own keys.
    const typed = target.matches("select, audio, input");
    const theirs = target.matches("select, audio") || event.key.startsWith("Arrow") || ["Home", "End", "-", "+"].includes(event.key);
    if (typed && theirs) return;
    if (gallery.key(event.key)) event.preventDefault();
  });
}

// ---------------------------------------------------------------- charts

const SHAPES = [
  "M-3.2,0a3.2,3.2 0 1,0 6.4,0a3.2,3.2 0 1,0 -6.4,0", "M-3,-3h6v6h-6z", "M0,-3.8L3.6,3H-3.6z", "M0,-4L4,0L0,4L-4,0z",
  "M0,3.8L3.6,-3H-3.6z", "M-3.5,-1.2h2.3v-2.3h2.4v2.3h2.3v2.4h-2.3v2.3h-2.4v-2.3h-2.3z", "M-3,-1.5L0,-3.6L3,-1.5V3H-3z",
];
const GRAY_DASHES = ["7 4", "8 3 2 3", "2 3", "12 4"];

class Chart {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.panel = 0;
    this.at = null;
    this.hidden = new Set();
    this.head = make("div", { className: "chart-head" });
    this.plot = make("div", { className: "plot", tabIndex: 0, role: "group", "aria-label": `${data.title}. Use the arrow keys to read values.` });
    this.legend = make("div", { className: "legend", role: "group", "aria-label": "Curves" });
    this.readout = make("div", { className: "readout", hidden: true });
    this.spoken = make("p", { className: "hidden", "aria-live": "polite" });
    this.table = make("details", {}, make("summary", {}, "Show values as a table"));
    this.table.addEventListener("toggle", () => this.fillTable());
    root.append(this.head, this.plot, this.legend, this.spoken, this.table);
    if (data.panels.length > 1) this.head.append(this.makeTabs());
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerdown", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.read(null));
    this.plot.addEventListener("blur", () => this.read(null));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.plot);
    this.fill();
  }

  makeTabs() {
    const options = make("div", { className: "options" });
    this.data.panels.forEach((panel, i) => {
      const radio = make("input", { type: "radio", name: `panel-${this.root.dataset.chart}`, value: String(i), checked: i === 0 });
      radio.addEventListener("change", () => { this.panel = i; this.hidden.clear(); this.fill(); });
      options.append(make("label", {}, radio, make("span", {}, panel.title)));
    });
    return make("fieldset", { className: "choice" }, make("legend", {}, "Panel"), options);
  }

  get curves() { return this.data.panels[this.panel].curves; }

  style(curve) {
    const models = this.curves.filter((each) => each.kind === "model");
    if (curve.kind === "model") {
      const place = models.indexOf(curve);
      return { className: `color-${place % 7}`, dash: place < 7 ? "" : "6 2", shape: SHAPES[place % 7], width: 2.2 };
    }
    if (curve.kind === "shuffled") return { className: "color-0", dash: "1.5 3.5", shape: "", width: 1.6 };
    const gray = this.curves.filter((each) => each.kind === curve.kind);
    return { className: "color-gray", dash: GRAY_DASHES[gray.indexOf(curve) % 4], shape: "", width: 1.5 };
  }

  fill() {
    this.legend.replaceChildren(...this.curves.map((curve) => {
      const { className, dash, shape, width } = this.style(curve);
      const swatch = makeSvg("svg", { width: 34, height: 12, "aria-hidden": "true", class: className });
      swatch.append(makeSvg("path", { d: "M2,6H32", "stroke-width": width, "stroke-dasharray": dash, class: "curve" }));
      if (shape) swatch.append(makeSvg("path", { d: shape, transform: "translate(17 6)", class: "mark" }));
      const button = make("button", { type: "button", "aria-pressed": "true" }, swatch, make("span", {}, curve.label));
      button.addEventListener("click", () => {
        if (!this.hidden.delete(curve.label)) this.hidden.add(curve.label);
        button.setAttribute("aria-pressed", String(!this.hidden.has(curve.label)));
        this.draw();
      });
      return button;
    }));
    this.fillTable();
    this.draw();
  }

  format(value) { return value === null ? "–" : this.data.percent ? percent(value, 1) : value.toFixed(3); }

  draw() {
    const { x_values: xs, x, y, mark, percent: inPercent } = this.data;
    const width = Math.max(260, this.plot.clientWidth), height = clamp(width * 0.5, 230, 400);
    const left = 44, right = 12, top = 30, bottom = 40;
    const low = xs[0], span = xs[xs.length - 1] - low || 1;
    this.toX = (value) => left + ((value - low) / span) * (width - left - right);
    const toY = (value) => height - bottom - value * (height - top - bottom);
    const svg = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
    for (const value of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
      svg.append(makeSvg("path", { d: `M${left},${toY(value)}H${width - right}`, class: "grid" }));
      svg.append(makeSvg("text", { x: left - 8, y: toY(value) + 4, "text-anchor": "end" }, inPercent ? String(Math.round(100 * value)) : value.toFixed(1)));
    }
    // Label every n-th x value, as many as fit.
    const few = Math.max(1, Math.ceil((xs.length - 1) / (width < 480 ? 5 : 10)));
    xs.forEach((value, i) => {
      if (i % few) return;
      svg.append(makeSvg("text", { x: this.toX(value), y: height - bottom + 18, "text-anchor": "middle" }, String(Number(value.toFixed(2)))));
    });
    svg.append(makeSvg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle", class: "axis" }, x));
    svg.append(makeSvg("text", { x: 4, y: 10, class: "axis" }, inPercent ? `${y} (%)` : y));
    if (mark) {
      svg.append(makeSvg("path", { d: `M${this.toX(mark[0])},${top}V${height - bottom}`, class: "threshold" }));
      svg.append(makeSvg("text", { x: this.toX(mark[0]) + 5, y: top + 11, class: "axis" }, mark[1]));
    }
    this.lines = this.curves.filter((curve) => !this.hidden.has(curve.label));
    // In reverse, so that the first curve is drawn on top.
    for (const curve of [...this.lines].reverse()) {
      const { className, dash, shape, width: stroke } = this.style(curve);
      const group = makeSvg("g", { class: className });
      let path = "";
      curve.values.forEach((value, i) => {
        if (value === null) return;
        path += `${path && curve.values[i - 1] !== null ? "L" : "M"}${this.toX(xs[i]).toFixed(1)},${toY(value).toFixed(1)}`;
      });
      group.append(makeSvg("path", { d: path, "stroke-width": stroke, "stroke-dasharray": dash, class: "curve" }));
      const every = xs.length > 12 ? 4 : 1;
      if (shape) curve.values.forEach((value, i) => {
        if (value !== null && i % every === 0) group.append(makeSvg("path", { d: shape, transform: `translate(${this.toX(xs[i])} ${toY(value)})`, class: "mark" }));
      });
      svg.append(group);
    }
    this.cross = makeSvg("path", { class: "cross", d: "" });
    svg.append(this.cross);
    this.frame = { top, bottom: height - bottom, width };
    this.plot.replaceChildren(svg, this.readout);
    this.read(this.at);
  }

  point(event) {
    const x = event.clientX - this.plot.getBoundingClientRect().left;
    const distance = this.data.x_values.map((value) => Math.abs(this.toX(value) - x));
    this.read(distance.indexOf(Math.min(...distance)));
  }

  key(event) {
    const last = this.data.x_values.length - 1;
    const to = { ArrowLeft: (this.at ?? 1) - 1, ArrowRight: (this.at ?? -1) + 1, Home: 0, End: last }[event.key];
    if (to === undefined && event.key !== "Escape") return;
    event.preventDefault();
    this.read(to === undefined ? null : clamp(to, 0, last));
    if (this.at !== null) this.spoken.textContent = `${this.heading}: ${this.values.map(([label, value]) => `${label} ${value}`).join("; ")}`;
  }

  get heading() { return `${this.data.x} ${Number(this.data.x_values[this.at].toFixed(3))}`; }

  get values() {
    return [...this.lines].sort((a, b) => (b.values[this.at] ?? -1) - (a.values[this.at] ?? -1))
      .map((curve) => [curve.label, this.format(curve.values[this.at]), this.style(curve).className]);
  }

  /** Show the values at one x index, or hide them (null). */
  read(at) {
    this.at = at;
    this.readout.hidden = at === null;
    this.cross?.setAttribute("d", "");
    if (at === null) return;
    const x = this.toX(this.data.x_values[at]);
    this.cross.setAttribute("d", `M${x},${this.frame.top}V${this.frame.bottom}`);
    this.readout.replaceChildren(
      make("strong", {}, this.heading),
      ...this.values.map(([label, value, className]) => make("div", { className }, make("i"), make("span", {}, label), make("b", {}, value))),
    );
    const room = this.plot.clientWidth - this.readout.offsetWidth - 4;
    const side = x < this.frame.width / 2 ? x + 14 : x - this.readout.offsetWidth - 14;
    this.readout.style.left = `${clamp(side, 0, Math.max(0, room))}px`;
  }

  fillTable() {
    const summary = this.table.firstElementChild;
    if (!this.table.open) { this.table.replaceChildren(summary); return; }
    const head = make("tr", {}, make("th", { scope: "col" }, this.data.x), ...this.curves.map((curve) => make("th", { scope: "col", className: "num" }, curve.label)));
    const rows = this.data.x_values.map((value, i) => make("tr", {}, make("th", { scope: "row" }, String(Number(value.toFixed(3)))),
      ...this.curves.map((curve) => make("td", { className: "num" }, this.format(curve.values[i])))));
    const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
    this.table.replaceChildren(summary, make("div", { className: "scroll", role: "region", tabIndex: 0, "aria-label": `${this.data.title}, values` }, table));
  }
}

// ---------------------------------------------------------------- start

startTheme();
for (const root of document.querySelectorAll("[data-chart]")) new Chart(root, DATA.charts[root.dataset.chart]);
const galleries = [...document.querySelectorAll("[data-gallery]")].map((root) => new Gallery(root, DATA.galleries[root.dataset.gallery]));
startKeys(galleries);
Promise.all(galleries.map((gallery) => gallery.start())).then(() => {
  Gallery.last = Gallery.last || galleries[0] || null;
  document.documentElement.dataset.ready = "true";
});
