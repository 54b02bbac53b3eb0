// Interactive charts.

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
    rove(this.legend, "button");
  }

  makeTabs() {
    const options = make("div", { className: "options" });
    this.data.panels.forEach((panel, i) => {
      const radio = make("input", { type: "radio", name: `panel-${this.root.dataset.chart}`, value: String(i), checked: i === 0 });
      radio.addEventListener("change", () => { this.panel = i; this.hidden.clear(); this.fill(); for (const [j, each] of [...this.legend.children].entries()) each.tabIndex = j ? -1 : 0; });
      options.append(make("label", {}, radio, make("span", {}, panel.title)));
    });
    return make("fieldset", { className: "choice" }, make("legend", {}, "Panel"), options);
  }

  get curves() { return this.data.panels[this.panel].curves; }
  get inPercent() { return this.data.panels[this.panel].percent; }

  /** Ends of the y axis and the distance of its grid lines: 0 to 1 for fractions, unless a value lies outside. */
  get scale() {
    const values = this.curves.flatMap((curve) => curve.values).filter((value) => value !== null);
    let low = Math.min(0, ...values), high = Math.max(this.inPercent ? 1 : 0, ...values);
    if (high === low) high = low + 1;
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
    return { low: Math.floor(low / step + 1e-9) * step, high: Math.ceil(high / step - 1e-9) * step, step };
  }

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

  format(value) { return value === null ? "–" : this.inPercent ? percent(value, 1) : String(Number(value.toPrecision(4))); }

  draw() {
    const { x_values: xs, x, mark } = this.data;
    const { y } = this.data.panels[this.panel], scale = this.scale;
    const width = Math.max(260, this.plot.clientWidth), height = clamp(width * 0.5, 230, 400);
    const left = 44, right = 12, top = 30, bottom = 40;
    const low = xs[0], span = xs[xs.length - 1] - low || 1;
    this.toX = (value) => left + ((value - low) / span) * (width - left - right);
    const toY = (value) => height - bottom - ((value - scale.low) / (scale.high - scale.low)) * (height - top - bottom);
    const svg = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
    for (let i = Math.round(scale.low / scale.step); i <= Math.round(scale.high / scale.step); i++) {
      const value = i * scale.step, shown = this.inPercent ? 100 * value : value;
      svg.append(makeSvg("path", { d: `M${left},${toY(value)}H${width - right}`, class: "grid" }));
      svg.append(makeSvg("text", { x: left - 8, y: toY(value) + 4, "text-anchor": "end" }, String(Number(shown.toPrecision(4)))));
    }
    // Label every n-th x value, as many as fit.
    const few = Math.max(1, Math.ceil((xs.length - 1) / (width < 480 ? 5 : 10)));
    xs.forEach((value, i) => {
      if (i % few) return;
      svg.append(makeSvg("text", { x: this.toX(value), y: height - bottom + 18, "text-anchor": "middle" }, String(Number(value.toFixed(2)))));
    });
    svg.append(makeSvg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle", class: "axis" }, x));
    svg.append(makeSvg("text", { x: 4, y: 10, class: "axis" }, this.inPercent ? `${y} (%)` : y));
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
    return [...this.lines].sort((a, b) => (b.values[this.at] ?? -Infinity) - (a.values[this.at] ?? -Infinity))
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

