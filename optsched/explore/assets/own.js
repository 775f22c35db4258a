// The third tab: a schedule is drawn or pasted, and judged on the problem of the first tab.
import { Latest, put, state } from "./base.js";
import { problem, solution, whenSolved } from "./model.js";
import { Chart, element, number, shape, table, words } from "./plots.js";

const LEFT = 52, RIGHT = 470, TOP = 14, BOTTOM = 250; // of the editor, in its own units
const SHAPES = {
  constant: [[0, 0.4], [1, 0.4]],
  linear: [[0, 0.6], [1, 0]],
  cosine: Array.from({ length: 21 }, (_, i) => [i / 20, 0.65 * 0.5 * (1 + Math.cos((Math.PI * i) / 20))]),
  wsd: [[0, 0.4], [0.8, 0.4], [1, 0]],
};
const byId = (id) => document.getElementById(id);
let knots = null, top = 1, csv = null, chart, svg, layer, best = null, visible = false;
const judge = new Latest("judge", (found, body) => judged(found, body), 3000);

const x = (share) => LEFT + share * (RIGHT - LEFT);
const y = (rate) => BOTTOM - (Math.min(rate, 1.1 * top) / (1.1 * top)) * (BOTTOM - TOP);
const rounded = (value) => Number(value.toPrecision(4));

function shaped(name) {
  const peak = solution()?.numbers.eta_peak ?? 1;
  return SHAPES[name].map(([share, height]) => [rounded(share), rounded(height * peak)]);
}

function changed({ fast = false } = {}) {
  knots.sort((one, other) => one[0] - other[0]);
  csv = null;
  put({ knots: knots.map((one) => one.join(",")).join(";") });
  draw();
  if (!fast) list();
  request();
}

function request() {
  if (!visible || !knots) return;
  judge.ask({ problem: problem(), ...(csv === null ? { knots } : { csv }) });
}

function draw() {
  const line = (points) => points.map(([share, rate], i) => `${i ? "L" : "M"}${x(share).toFixed(1)} ${y(rate).toFixed(1)}`).join("");
  const focused = layer.contains(document.activeElement) ? [...layer.querySelectorAll(".knot")].indexOf(document.activeElement) : -1;
  layer.replaceChildren();
  for (let i = 0; i <= 4; i += 1) {
    const rate = (i / 4) * top;
    layer.append(shape("line", { x1: LEFT, x2: RIGHT, y1: y(rate), y2: y(rate), class: "tick" }), shape("text", { x: LEFT - 6, y: y(rate) + 4, "text-anchor": "end", class: "soft" }, number(rate, 3)));
    layer.append(shape("text", { x: x(i / 4), y: BOTTOM + 16, "text-anchor": "middle", class: "soft" }, number(i / 4)));
  }
  layer.append(shape("text", { x: (LEFT + RIGHT) / 2, y: BOTTOM + 34, "text-anchor": "middle" }, "t / T"), shape("text", { "text-anchor": "middle", transform: `translate(10 ${(TOP + BOTTOM) / 2}) rotate(-90)` }, "rate η"));
  if (best) layer.append(shape("path", { d: line(best.steps.map((step, i) => [step / Math.max(best.horizon - 1, 1), best.eta[i]])), class: "best" }));
  if (!knots) return;
  const ends = [[0, knots[0][1]], ...knots, [1, knots.at(-1)[1]]];
  layer.append(shape("path", { d: line(ends), class: "mine" }));
  knots.forEach(([share, rate], i) => {
    const knot = shape("circle", { cx: x(share), cy: y(rate), r: 6, class: "knot", tabindex: 0, role: "slider", "aria-label": `knot ${i + 1}`, "aria-valuemin": 0, "aria-valuemax": top, "aria-valuenow": rate, "aria-valuetext": `rate ${number(rate)} at ${number(share)} of the run` });
    knot.dataset.index = i;
    layer.append(knot);
  });
  if (focused >= 0) layer.querySelectorAll(".knot")[Math.min(focused, knots.length - 1)]?.focus();
}

function list() {
  if (!knots) return;
  const cell = (i, j, label) => {
    const input = element("input", { type: "text", inputmode: "decimal", value: knots[i][j], "aria-label": `${label} of knot ${i + 1}` });
    input.addEventListener("change", () => {
      const given = Number(input.value);
      const good = Number.isFinite(given) && given >= 0 && (j === 1 || given <= 1) && input.value.trim() !== "";
      input.setAttribute("aria-invalid", !good);
      if (!good) return;
      knots[i][j] = given;
      grow(knots[i][1]);
      changed();
    });
    return input;
  };
  const remove = (i) => element("button", { type: "button", "aria-label": `remove knot ${i + 1}`, disabled: knots.length < 2, onclick: () => { knots.splice(i, 1); changed(); } }, "×");
  byId("knots").replaceChildren(table(["t / T", "rate", ""], knots.map((_, i) => [cell(i, 0, "share"), cell(i, 1, "rate"), remove(i)])));
}

function grow(rate) { if (rate > top) top = rounded(rate); }

function scale() {
  const highest = Math.max(...(knots ?? [[0, 0]]).map((one) => one[1]), solution()?.numbers.eta_peak ?? 0);
  top = highest > 0 ? rounded(highest) : 1;
}

function judged(found, body) {
  document.body.dataset.judged = Number(document.body.dataset.judged ?? 0) + 1;
  const pasted = body.csv !== undefined;
  byId("csv-error").textContent = found.error && pasted ? found.error.text : "";
  if (found.error) {
    byId("own-status").textContent = `${found.error.field ? found.error.field + ": " : ""}${found.error.text}`;
    for (const id of ["own-table", "own-lines", "own-loss"]) byId(id).classList.add("stale");
    return;
  }
  for (const id of ["own-table", "own-lines", "own-loss"]) byId(id).classList.remove("stale");
  const { numbers } = found, name = pasted ? "the csv" : "your schedule";
  byId("own-status").textContent = found.status === "diverges" ? `${pasted ? "The csv" : "Your schedule"} diverges: the loss grows without bound`
    : `${pasted ? "The csv" : "Your schedule"} loses ${found.to_optimum || "nothing that can be said"} to the optimum`;
  byId("own-problem").textContent = found.lines[0] ?? "";
  const row = (title, peak, one, regret) => [title, number(peak), number(one.excess_loss, 6), number(one.bias, 3), number(one.variance, 3), regret];
  byId("own-table").replaceChildren(table(["schedule", "peak rate", "excess loss", "bias", "variance", "to optimum"], [row("optimal", found.best.peak, found.best, ""), row(name, numbers.eta_peak, numbers, found.to_optimum)], { first: true }));
  byId("own-lines").replaceChildren(words(found.lines.slice(1)));
  best = { ...found.best.rate, horizon: found.horizon };
  if (pasted) {
    const { steps, eta } = found.rate, last = Math.max(found.horizon - 1, 1);
    const keep = steps.map((_, i) => i).filter((i) => i % Math.ceil(steps.length / 60) === 0 || i === steps.length - 1);
    knots = keep.map((i) => [rounded(steps[i] / last), eta[i]]);
    scale();
    list();
  }
  draw();
  const lines = [{ name: "optimal", colour: 0, dash: 1, x: found.best.loss.steps, y: found.best.loss.excess }];
  if (found.loss) lines.push({ name, colour: 2, dash: 0, width: 2.2, x: found.loss.steps, y: found.loss.excess });
  chart.show(lines, { x: "step t", label: `Excess loss of ${name} ends at ${number(numbers.excess_loss)}, of the optimum at ${number(found.best.excess_loss)}` });
}

function editor() {
  svg = shape("svg", { viewBox: "0 0 480 290", class: "editor", role: "group", "aria-label": "Schedule editor: knots of rate over the run. Arrow keys move the chosen knot, Delete removes it, Insert adds one after it." });
  layer = shape("g");
  svg.append(layer);
  byId("editor").append(svg, element("p", { class: "soft" }, "dashed: the optimum"));
  let held = null;
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * 480, py = ((event.clientY - box.top) / box.height) * 290;
    return [rounded(Math.min(1, Math.max(0, (px - LEFT) / (RIGHT - LEFT)))), rounded(Math.max(0, ((BOTTOM - py) / (BOTTOM - TOP)) * 1.1 * top))];
  };
  svg.addEventListener("pointerdown", (event) => {
    const index = event.target.dataset?.index;
    if (index === undefined) {
      if (knots.length >= 200) return;
      held = at(event);
      knots.push(held);
    } else held = knots[Number(index)];
    svg.setPointerCapture(event.pointerId);
    changed({ fast: true });
    layer.querySelectorAll(".knot")[knots.indexOf(held)]?.focus();
  });
  svg.addEventListener("pointermove", (event) => {
    if (!held) return;
    [held[0], held[1]] = at(event);
    changed({ fast: true });
  });
  const end = () => { if (held) { held = null; scale(); changed(); } };
  svg.addEventListener("pointerup", end);
  svg.addEventListener("pointercancel", end);
  svg.addEventListener("keydown", (event) => {
    const index = Number(event.target.dataset?.index);
    if (!Number.isInteger(index)) return;
    const knot = knots[index], step = event.shiftKey ? 5 : 1;
    const by = { ArrowRight: [0.01, 0], ArrowLeft: [-0.01, 0], ArrowUp: [0, 0.01], ArrowDown: [0, -0.01] }[event.key];
    if (by) {
      knot[0] = rounded(Math.min(1, Math.max(0, knot[0] + step * by[0])));
      knot[1] = rounded(Math.max(0, knot[1] + step * by[1] * top));
      grow(knot[1]);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      if (knots.length < 2) return;
      knots.splice(index, 1);
    } else if (event.key === "Insert") {
      const next = knots[index + 1] ?? [1, knot[1]];
      knots.splice(index + 1, 0, [rounded((knot[0] + next[0]) / 2), rounded((knot[1] + next[1]) / 2)]);
    } else return;
    event.preventDefault();
    changed();
    layer.querySelectorAll(".knot")[Math.max(0, knots.indexOf(knot))]?.focus();
  });
}

export function start() {
  editor();
  chart = new Chart(byId("own-loss"), { y: "above the noise floor", logX: true, logY: true });
  byId("own-shapes").append(element("span", { class: "soft" }, "Begin with"), ...Object.keys(SHAPES).map((name) => element("button", { type: "button", onclick: () => { knots = shaped(name); scale(); changed(); } }, name)));
  byId("csv-judge").addEventListener("click", () => { csv = byId("csv").value; request(); });
  byId("csv-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    if (file.size > 4e6) { byId("csv-error").textContent = "this is more than 4 MB: use optsched verify"; return; }
    byId("csv").value = await file.text();
    csv = byId("csv").value;
    request();
  });
  whenSolved((found) => {
    best = { ...found.rate, horizon: found.numbers.horizon };
    if (!knots) { knots = shaped("wsd"); list(); }
    scale();
    draw();
    request();
  });
}

export function follow() {
  const given = (state.get("knots") ?? "").split(";").map((pair) => pair.split(",").map(Number))
    .filter((pair) => pair.length === 2 && pair.every((one) => Number.isFinite(one) && one >= 0) && pair[0] <= 1).slice(0, 200);
  if (given.length) { knots = given; csv = null; scale(); list(); draw(); request(); }
}

export function shown() { visible = true; chart.fit(); request(); }
