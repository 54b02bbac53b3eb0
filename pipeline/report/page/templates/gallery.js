// Galleries of clips with their response maps.

class Gallery {
  constructor(root, data) {
    this.root = root;
    this.name = root.dataset.gallery;
    this.part = (role) => root.querySelector(`[data-role="${role}"]`);
    this.radios = [...root.querySelectorAll(`input[name="${this.name}-method"]`)];
    this.data = data;
    data.weights = Object.fromEntries(Object.entries(data.matrices).map(([side, text]) => [side, floatsOf(text)]));
  }

  async start() {
    await this.fill(this.data.clips);
    this.strip = this.data.methods.map((method, m) => this.makeStrip(method, m));
    this.part("strip").append(...this.strip.map((each) => each.button));
    this.listen();
    this.listenFinding();
    this.list();
    // The best clip would promise too much, the worst one too little.
    this.go(this.name === "scored" ? Math.floor(this.order.length / 2) : 0);
    this.linked = true;
  }

  /** Load the frames of clips and take these clips, unless something newer came in the meantime. */
  async fill(clips, current = () => true) {
    const frames = await Promise.all(clips.map(async (clip) => {
      const image = new Image();
      image.src = clip.frame;
      await image.decode();
      return image;
    }));
    if (!current()) return false;
    this.frames = frames;
    this.data.clips = clips;
    this.cells = clips.map((clip) => clip.maps.map((epochs) => epochs.map(bytesOf)));
    this.cards = clips.map((clip, i) => this.makeCard(clip, i));
    this.order = clips.map((_, i) => i);
    this.current = 0;
    this.shownClip = undefined;
    return true;
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
    return this.name === "scored" ? this.score(clip.scores[method][epoch]) : percent(clip.facts[method][epoch][0], 0);
  }

  /** A cIoU as text, with as many digits as it takes to be on its own side of the threshold. */
  score(value) {
    const { threshold } = this.data;
    for (let digits = 2; ; digits++) {
      const text = value.toFixed(digits);
      if ((Number(text) >= threshold) === (value >= threshold) || digits === 6) return text;
    }
  }

  makeCard(clip, i) {
    const canvas = make("canvas", { width: 160, height: 160, "aria-hidden": "true" });
    const value = make("b");
    const button = make("button", { type: "button", tabIndex: -1 }, canvas, make("span", {}, clip.label || clip.id), value);
    button.addEventListener("click", () => { this.show(i); this.reveal(); });
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
    this.part("previous").addEventListener("click", () => this.step(-1));
    this.part("next").addEventListener("click", () => this.step(1));
    this.part("play")?.addEventListener("click", () => this.play());
    rove(this.part("strip"), "button");
    const audio = this.part("audio");
    audio.addEventListener("timeupdate", () => this.moveHead());
    audio.addEventListener("play", () => { const run = () => { this.moveHead(); if (!audio.paused) requestAnimationFrame(run); }; run(); });
  }

  listenFinding() {
    for (const role of ["sort", "label", "result"]) this.part(role)?.addEventListener("change", () => this.relist());
    const low = this.part("low"), high = this.part("high");
    low.addEventListener("input", () => { if (Number(low.value) > Number(high.value)) low.value = high.value; this.relist(); });
    high.addEventListener("input", () => { if (Number(high.value) < Number(low.value)) high.value = low.value; this.relist(); });
    this.part("reset").addEventListener("click", () => this.reset());
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
    // An element loses the focus when it is moved.
    const focused = document.activeElement;
    this.part("cards").replaceChildren(...this.order.map((i) => this.cards[i].item));
    if (this.part("cards").contains(focused)) focused.focus({ preventScroll: true });
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
      if (!this.part("strip").contains(document.activeElement)) each.button.tabIndex = m === Math.max(this.method, 0) ? 0 : -1;
    }
    drawBar(this.part("bar"), this.opacity);
    if (changed) this.load(clip);
    if (this.linked) this.link();
  }

  // ---- links to one clip in one state

  /** The fragment of the address that shows the same again. */
  get fragment() {
    const { clips, methods } = this.data;
    const epoch = methods[this.measured].epochs[this.epoch(this.measured)];
    const state = new URLSearchParams({ clip: clips[this.current].id, epoch, method: this.method < 0 ? "none" : methods[this.method].name });
    // A clip id may occur in both galleries.
    if (document.querySelector("[data-gallery]") !== this.root) state.set("gallery", this.name);
    return `#${state}`;
  }

  /** Write the state into the address, once it rests: browsers limit how often that may happen. */
  link() {
    clearTimeout(this.linking);
    this.linking = setTimeout(() => this.data.clips.length && history.replaceState(null, "", this.fragment), 300);
  }

  /** Show the state of a link. Returns whether this gallery has its clip. */
  follow(state) {
    const { clips, methods } = this.data;
    const i = clips.findIndex((clip) => clip.id === state.get("clip"));
    if (i < 0 || (state.get("gallery") ?? this.name) !== this.name) return false;
    const method = methods.findIndex((each) => each.name === state.get("method"));
    if (state.get("method") === "none") this.radios.at(-1).checked = true;
    else if (method >= 0) this.radios[method].checked = true;
    const epoch = methods[this.measured].epochs.indexOf(Number(state.get("epoch")));
    if (state.has("epoch") && epoch >= 0) this.part("epoch").value = epoch;
    this.relist();
    if (!this.order.includes(i)) this.reset();
    this.go(this.order.indexOf(i));
    this.reveal(true);
    this.cards[i].button.focus({ preventScroll: true });
    return true;
  }

  get inView() {
    const box = this.root.getBoundingClientRect();
    return box.bottom > headerHeight() && box.top < innerHeight;
  }

  /** Scroll the page to the viewer unless it is in view already. */
  reveal(always = false) {
    const box = this.part("view").getBoundingClientRect();
    const seen = Math.min(box.bottom, innerHeight) - Math.max(box.top, headerHeight());
    if (always || seen < box.height / 2) this.part("view").closest(".viewer").scrollIntoView({ block: "start" });
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
      facts.push(`cIoU ${this.score(score)} (${score >= threshold ? "success" : "failure"} at threshold ${threshold})`);
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
    // Without focus, keys belong to the gallery that was used last while it is in view, and else scroll the page.
    const gallery = own || (target === document.body && Gallery.last?.inView ? Gallery.last : null);
    if (!gallery) return;
    // Sliders, menus and radio buttons keep their own keys.
    const typed = target.matches("select, audio, input");
    const theirs = target.matches("select, audio") || event.key.startsWith("Arrow") || ["Home", "End", "-", "+"].includes(event.key);
    if (typed && theirs) return;
    if (gallery.key(event.key)) event.preventDefault();
  });
}

