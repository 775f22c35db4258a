// Line charts by uPlot, the phase diagram, and tables.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export const COLOURS = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5", "--c6"];
export const DASHES = [[], [7, 3], [2, 2], [8, 3, 2, 3], [12, 4], [4, 4], [1, 3]];

export function number(value, count = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e6) {
    const text = Number(value.toPrecision(count)).toString();
    return size >= 1e4 ? Number(text).toLocaleString("en") : text;
  }
  return Number(value.toPrecision(count)).toExponential().replace("e+", "e");
}

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function table(titles, rows, { words = 1, first = false, head = true } = {}) {
  const made = element("table", { class: "numbers" });
  if (head) {
    made.append(element("thead", {}, element("tr", {}, ...titles.map((text, i) =>
      element("th", { scope: "col", class: i < words ? "word" : null }, text)))));
  }
  const body = element("tbody");
  rows.forEach((row, i) => body.append(element("tr", { class: first && i === 0 ? "first" : null },
    ...row.map((cell, j) => element(j ? "td" : "th", { scope: j ? null : "row", class: j < words ? "word" : null }, cell)))));
  made.append(body);
  return made;
}

export function words(lines) {
  return element("ul", { class: "words" }, ...lines.map((line) => element("li", {}, line)));
}

export function swatch(i) {
  const made = element("span", { class: "swatch", "aria-hidden": "true" });
  made.style.borderTopColor = `var(${COLOURS[i % COLOURS.length]})`;
  made.style.borderTopStyle = i ? "dashed" : "solid";
  return made;
}

const LEAST = 1e-300; // of a logarithmic axis: less is no number that a loss is meant to have
const TICKS = 8;

// Powers of ten, and 2 and 5 times them on a short axis; those of uPlot end at 1e-16.
function logTicks(u, axis, low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high)), found = [];
  const stride = Math.max(1, Math.ceil((last - first) / TICKS));
  const parts = last - first <= 2 ? [1, 2, 5] : [1];
  for (let power = first; power <= last; power += stride)
    for (const part of parts) {
      const at = Number(`${part}e${power}`);
      if (at >= low * (1 - 1e-9) && at <= high * (1 + 1e-9)) found.push(at);
    }
  return found;
}

// Whole decades around the values, if they span more than one and a half.
function logRange(low, high) {
  if (high / low < 30) return [low / 1.3, high * 1.3];
  const down = Number(`1e${Math.floor(Math.log10(low))}`), up = Number(`1e${Math.ceil(Math.log10(high))}`);
  return [down > 0 ? down : low, Number.isFinite(up) ? up : high];
}

const every = new Set();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => every.forEach((chart) => chart.rebuild()));

// A chart of lines with steps of their own. `show` is fast while the lines keep their names.
export class Chart {
  constructor(home, { x = "step", y = "", logX = false, logY = false, height = 230, fromZero = false } = {}) {
    Object.assign(this, { home, x, y, logX, logY, height, fromZero });
    this.plot = null;
    this.lines = [];
    this.key = "";
    this.place = element("div");
    home.append(this.place);
    home.setAttribute("role", "group");
    every.add(this);
    new ResizeObserver(() => this.fit()).observe(this.place);
  }

  width() { return Math.max(this.place.clientWidth, 200); }

  fit() {
    if (this.plot && this.place.clientWidth && this.plot.width !== this.width()) this.plot.setSize({ width: this.width(), height: this.height });
  }

  // lines: {name, x: [], y: [], colour: index, dash: index, width, points, band: [low, high]}
  show(lines, { x = this.x, label = "", limits = null } = {}) {
    const bare = (value, log) => (value === null || !Number.isFinite(value) || (log && value <= 0) ? null : value);
    const tables = [];
    this.columns = [];
    for (const line of lines) {
      const xs = [], columns = [[], ...(line.band ? [[], []] : [])];
      line.x.forEach((at, i) => {
        if (bare(at, this.logX) === null) return;
        xs.push(at);
        columns[0].push(bare(line.y[i], this.logY));
        if (line.band) { columns[1].push(bare(line.band[0][i], this.logY)); columns[2].push(bare(line.band[1][i], this.logY)); }
      });
      tables.push([xs, ...columns]);
      this.columns.push(line);
      if (line.band) this.columns.push({ ...line, edge: true }, { ...line, edge: true });
    }
    const data = tables.length ? uPlot.join(tables) : [[]];
    this.x = x;
    this.limits = limits;
    this.lines = lines;
    this.data = data;
    const key = JSON.stringify([x, this.logX, this.logY, this.columns.map((one) => [one.name, one.colour, one.dash, one.points, one.edge])]);
    this.place.setAttribute("role", "img");
    this.place.setAttribute("aria-label", label);
    if (this.plot && key === this.key) this.plot.setData(data);
    else { this.key = key; this.rebuild(); }
  }

  rebuild() {
    if (!this.data) return;
    if (this.plot) this.plot.destroy();
    const axis = (label, log) => ({
      label, labelSize: 18, labelFont: "12px system-ui, sans-serif", font: "11px system-ui, sans-serif", stroke: css("--soft"),
      grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--grid"), width: 1, size: 4 },
      ...(log ? { splits: logTicks, filter: (u, splits) => splits } : {}),
      values: (u, splits) => splits.map((value) => (value === null ? "" : number(value, 3))),
    });
    const series = this.columns.map((line) => ({
      label: line.name,
      stroke: line.edge ? "transparent" : css(COLOURS[line.colour % COLOURS.length]),
      width: line.edge ? 0 : line.width ?? (line.colour ? 1.5 : 2.2),
      dash: line.dash ? DASHES[line.dash % DASHES.length] : undefined,
      spanGaps: !line.points,
      paths: line.points ? () => null : undefined,
      points: { show: Boolean(line.points), size: 4, fill: css(COLOURS[line.colour % COLOURS.length]) },
      value: (u, value) => (value === null || value === undefined ? "–" : number(value)),
    }));
    const bands = [];
    this.columns.forEach((line, i) => {
      if (line.edge && this.columns[i + 1]?.edge && this.columns[i + 1].name === line.name && !(bands.length && bands.at(-1).series[0] === i + 1))
        bands.push({ series: [i + 2, i + 1], fill: css("--band") });
    });
    const linear = (u, low, high) => {
      if (low === null || high === null) return [0, 1];
      if (this.limits) return this.limits;
      const room = 0.06 * (high - low || Math.abs(high) || 1);
      return [this.fromZero ? Math.min(0, low) : low - room, high + room];
    };
    const log = (u, low, high) => {
      const [from, to] = this.limits ?? [low, high];
      if (!(to > LEAST && Number.isFinite(to))) return [0.1, 10];
      const floor = Math.min(Math.max(from, LEAST), to / 2);
      return this.limits ? [floor, to] : logRange(floor, to);
    };
    const options = {
      width: this.width(), height: this.height,
      scales: {
        x: { time: false, distr: this.logX ? 3 : 1, range: this.logX ? (u, low, high) => (low > 0 && high > low ? [low, high] : [0.5, 2]) : (u, low, high) => (low === null ? [0, 1] : high > low ? [low, high] : [low, low + 1]) },
        y: { distr: this.logY ? 3 : 1, range: this.logY ? log : linear },
      },
      axes: [{ ...axis(this.x, this.logX), size: 30 }, { ...axis(this.y, this.logY), size: 58 }],
      series: [{ label: this.x, value: (u, value) => (value === null || value === undefined ? "–" : number(value, 5)) }, ...series],
      bands,
      cursor: { drag: { x: true, y: true, uni: 20 } },
      legend: { show: true },
    };
    this.plot = new uPlot(options, this.data, this.place);
    // Edges of bands have no row in the legend.
    this.columns.forEach((line, i) => {
      if (line.edge) this.place.querySelectorAll(".u-legend .u-series")[i + 1].hidden = true;
    });
  }
}

const SVG = "http://www.w3.org/2000/svg";
export function shape(name, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

// The plane of (a, b): easy below b = a, hard above, with lines of equal exponent of the loss.
export class PhaseDiagram {
  constructor(home, moved) {
    this.low = 1;
    this.high = 6;
    this.moved = moved;
    this.svg = shape("svg", { viewBox: "0 0 360 320", tabindex: "0", role: "application", "aria-roledescription": "phase diagram" });
    home.append(this.svg, element("p", { class: "soft" }, "thin lines: equal exponent of the loss, in theory"));
    const { svg } = this;
    const x = (a) => this.x(a), y = (b) => this.y(b);
    const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
    svg.append(shape("path", { d: path([[1, 1], [6, 1], [6, 6]]) + "Z", class: "easy-area" }));
    svg.append(shape("path", { d: path([[1, 1], [1, 6], [6, 6]]) + "Z", class: "hard-area" }));
    for (let value = 1; value <= 6; value += 1) {
      svg.append(shape("text", { x: x(value), y: 287, "text-anchor": "middle", class: "soft" }, value));
      svg.append(shape("text", { x: 34, y: y(value) + 4, "text-anchor": "end", class: "soft" }, value));
    }
    // Loss ~ T^-p with p = (a - 1) / max(a, b).
    for (const p of [0.3, 0.5, 0.6, 0.7, 0.8]) {
      const corner = 1 / (1 - p);
      const points = [[corner, 1], [corner, corner]];
      const top = Math.min(6, 5 / p);
      if (corner <= 6) {
        points.push([1 + p * top, top]);
        svg.append(shape("path", { d: path(points), class: "contour" }));
        svg.append(shape("text", { x: x(corner) + 3, y: y(1) - 5, class: "soft" }, p));
      }
    }
    svg.append(shape("path", { d: path([[1, 1], [6, 6]]), class: "edge" }));
    svg.append(shape("rect", { x: x(1), y: y(6), width: x(6) - x(1), height: y(1) - y(6), class: "frame" }));
    svg.append(shape("text", { x: x(1.72), y: y(5.5), "text-anchor": "middle" }, "hard phase"));
    svg.append(shape("text", { x: x(4.17), y: y(2.6), "text-anchor": "middle" }, "easy phase"));
    svg.append(shape("text", { x: x(3.5), y: 310, "text-anchor": "middle" }, "target exponent a"));
    const side = shape("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(14 ${y(3.5)}) rotate(-90)` }, "covariance exponent b");
    svg.append(side);
    this.here = shape("circle", { r: 7, class: "here" });
    svg.append(this.here);
    let held = false;
    const at = (event) => {
      const box = svg.getBoundingClientRect();
      const px = ((event.clientX - box.left) / box.width) * 360, py = ((event.clientY - box.top) / box.height) * 320;
      this.go(1 + ((px - 42) / 306) * 5, 1 + ((270 - py) / 258) * 5);
    };
    svg.addEventListener("pointerdown", (event) => { held = true; svg.setPointerCapture(event.pointerId); at(event); });
    svg.addEventListener("pointermove", (event) => held && at(event));
    svg.addEventListener("pointerup", () => { held = false; });
    svg.addEventListener("pointercancel", () => { held = false; });
    svg.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.5 : 0.05;
      const by = { ArrowRight: [step, 0], ArrowLeft: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
      if (!by) return;
      event.preventDefault();
      this.go(this.a + by[0], this.b + by[1]);
    });
  }

  x(a) { return 42 + ((a - 1) / 5) * 306; }
  y(b) { return 270 - ((b - 1) / 5) * 258; }

  go(a, b) {
    const inside = (value) => Math.round(Math.min(6, Math.max(1.05, value)) * 100) / 100;
    this.moved(inside(a), inside(b));
  }

  show(a, b, phase) {
    this.a = a;
    this.b = b;
    if (!Number.isFinite(a) || !Number.isFinite(b)) return;
    const inside = (value) => Math.min(6, Math.max(1, value));
    this.here.setAttribute("cx", this.x(inside(a)));
    this.here.setAttribute("cy", this.y(inside(b)));
    const outside = a > 6 || b > 6 ? ", outside of the map" : "";
    this.svg.setAttribute("aria-label", `a = ${a}, b = ${b}, ${phase} phase${outside}. Arrow keys move.`);
  }
}
