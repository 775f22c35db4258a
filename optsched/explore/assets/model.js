// The first tab: the problem's fields, the optimum while a slider moves, and what follows a moment later.
import { Latest, copy, download, put, state } from "./base.js";
import { Chart, PhaseDiagram, element, number, swatch, table, words } from "./plots.js";

const logarithm = (low, high, digits) => ({
  low: Math.log10(low), high: Math.log10(high), step: 0.01,
  to: (value) => Number((10 ** value).toPrecision(digits)), from: (value) => Math.log10(value),
});
const linear = (low, high, step) => ({ low, high, step, to: (value) => Number(value.toFixed(4)), from: (value) => value });
const MOST_FEATURES = 6.5; // of the slider, in powers of ten; its end is infinite
export const FIELDS = [
  { key: "a", field: "a", symbol: "a", words: "target exponent", start: 3.5, scale: linear(1.05, 6, 0.05), option: "--a" },
  { key: "b", field: "b", symbol: "b", words: "covariance exponent", start: 2, scale: linear(1.05, 6, 0.05), option: "--b" },
  { key: "T", field: "horizon", symbol: "T", words: "steps", start: 3162, option: "--horizon",
    scale: { ...logarithm(1, 1e9, 4), to: (value) => Math.max(1, Math.round(Number((10 ** value).toPrecision(4)))) } },
  { key: "m", field: "batch_size", symbol: "m", words: "batch size", start: 5, option: "--batch",
    scale: { ...logarithm(1, 1e4, 2), to: (value) => Math.max(1, Math.round(Number((10 ** value).toPrecision(2)))) } },
  { key: "sigma", field: "noise", symbol: "σ", words: "label noise", start: 0.5, scale: linear(0, 2, 0.01), option: "--noise" },
  { key: "peak", field: "eta_max", symbol: "η max", words: "largest rate", start: 1, scale: logarithm(1e-3, 100, 3), option: "--peak" },
  { key: "N", field: "features", symbol: "N", words: "features, or inf", start: 1000, option: "--features",
    scale: { low: 0, high: MOST_FEATURES, step: 0.01,
      to: (value) => (value >= MOST_FEATURES ? "inf" : Math.max(1, Math.round(Number((10 ** value).toPrecision(2))))),
      from: (value) => (value === "inf" ? MOST_FEATURES : Math.log10(value)) } },
];
const RIVALS = { constant: 3, linear: 1, cosine: 2, wsd: 4 };
const PHASES = {
  easy: "b < a: the whole schedule scales down as T grows",
  hard: "b > a: hold the largest stable rate, anneal over a vanishing share of the steps",
  boundary: "b = a: between the two phases",
};

const inputs = {};
let charts, diagram, optimum = null, rivals = null, asked = 0, later = 0;
const solve = new Latest("solve", (found, body) => solved(found, body));
const after = {
  proof: new Latest("proof", (found) => proven(found)),
  baselines: new Latest("baselines", (found) => compared(found)),
  exponents: new Latest("exponents", (found) => scaled(found)),
};
const byId = (id) => document.getElementById(id);
const followers = [];
export function whenSolved(listener) { followers.push(listener); }
export const solution = () => optimum;

function value(field) {
  const text = (inputs[field.key].text.value ?? "").trim();
  if (field.key === "N" && /^inf/i.test(text)) return "inf";
  const found = Number(text);
  return text === "" ? null : Number.isFinite(found) ? found : text;
}

export function problem() { return Object.fromEntries(FIELDS.map((field) => [field.field, value(field)])); }

function set(field, given) {
  const { text, slider } = inputs[field.key];
  text.value = given;
  slide(field, slider, given);
}

function slide(field, slider, given) {
  const at = field.scale.from(given === "inf" ? "inf" : Number(given));
  if (Number.isFinite(at)) slider.value = at;
  slider.setAttribute("aria-valuetext", String(given));
}

function fields() {
  const home = byId("fields");
  home.append(element("h2", {}, "The problem"), element("div", { id: "badge", class: "badge" }));
  for (const field of FIELDS) {
    const id = `field-${field.key}`;
    const text = element("input", { type: "text", id, inputmode: "decimal", autocomplete: "off", "aria-describedby": `${id}-error`, spellcheck: "false" });
    const slider = element("input", { type: "range", id: `${id}-slider`, min: field.scale.low, max: field.scale.high, step: field.scale.step, "aria-label": `${field.symbol}, ${field.words}` });
    const wrong = element("p", { id: `${id}-error`, class: "error", "aria-live": "polite" });
    inputs[field.key] = { text, slider, wrong };
    text.addEventListener("input", () => { slide(field, slider, text.value.trim()); changed(); });
    slider.addEventListener("input", () => {
      text.value = field.scale.to(Number(slider.value));
      slider.setAttribute("aria-valuetext", text.value);
      changed();
    });
    home.append(element("div", { class: "field" },
      element("div", { class: "top" }, element("label", { for: id }, element("span", { class: "symbol" }, field.symbol), ` ${field.words}`), text), slider, wrong));
  }
  home.addEventListener("submit", (event) => event.preventDefault());
  home.append(element("button", { type: "button", onclick: () => { for (const field of FIELDS) set(field, field.start); changed(); } }, "Back to the start"));
}

function changed() {
  asked = performance.now();
  put(Object.fromEntries(FIELDS.map((field) => {
    const text = inputs[field.key].text.value.trim();
    return [field.key, text === String(field.start) ? null : text || "none"];
  })));
  request();
}

function request() {
  solve.ask({ problem: problem() });
  clearTimeout(later);
  for (const one of Object.values(after)) one.drop();
  for (const id of ["rivals", "exponents", "proof"]) byId(id).classList.add("stale");
  take();
}

function wrong(error) {
  const field = FIELDS.find((one) => one.field === error.field);
  for (const one of FIELDS) {
    const mine = one === field;
    inputs[one.key].wrong.textContent = mine ? error.text : "";
    inputs[one.key].text.setAttribute("aria-invalid", mine);
  }
  byId("status").textContent = field ? `${field.symbol}: ${error.text}` : `${error.field ? error.field + ": " : ""}${error.text}`;
  for (const id of ["rate-linear", "rate-log", "loss"]) byId(id).classList.add("stale");
}

function solved(found, body) {
  if (found.error) { wrong(found.error); return; }
  wrong({ text: "" });
  for (const id of ["rate-linear", "rate-log", "loss"]) byId(id).classList.remove("stale");
  optimum = { ...found, problem: body.problem };
  rivals = null;
  const { numbers } = found;
  const phase = byId("badge");
  phase.className = `badge ${numbers.phase}`;
  phase.replaceChildren(element("b", {}, `${numbers.phase} phase`), element("br"), PHASES[numbers.phase] ?? "");
  diagram.show(numbers.a, numbers.b, numbers.phase);
  byId("status").textContent = found.converged
    ? `Excess loss ${number(numbers.excess_loss, 5)} after ${numbers.horizon.toLocaleString("en")} steps; rate from ${number(numbers.eta_start, 3)} to ${number(numbers.eta_end, 3)}`
    : `Not solved: ${found.message}`;
  draw();
  proof(found);
  requestAnimationFrame(() => { document.body.dataset.latency = (performance.now() - asked).toFixed(1); document.body.dataset.drawn = Number(document.body.dataset.drawn ?? 0) + 1; });
  for (const listener of followers) listener(optimum);
  clearTimeout(later);
  later = setTimeout(() => { for (const one of Object.values(after)) one.ask(body); }, 300);
}

function draw() {
  if (!optimum) return;
  const share = document.querySelector("input[name=axis]:checked").value === "share";
  const horizon = optimum.numbers.horizon;
  const at = (steps, shift) => steps.map((step) => (share ? (step + shift) / horizon : step + shift));
  const lines = [{ name: "optimal", colour: 0, dash: 0, rate: optimum.rate }, ...(rivals ?? []).map((row) => ({ name: row.name, colour: RIVALS[row.name], dash: RIVALS[row.name], rate: row.rate }))];
  const axis = share ? "t / T" : "step t";
  const about = `from ${number(optimum.numbers.eta_start)} to ${number(optimum.numbers.eta_end)}, at most ${number(optimum.numbers.eta_peak)}`;
  for (const [chart, shift] of [[charts.linear, 0], [charts.log, 1]]) {
    chart.show(lines.map((line) => ({ name: line.name, colour: line.colour, dash: line.dash, x: at(line.rate.steps, shift), y: line.rate.eta })),
      { limits: shift ? rateLimits(lines) : null, x: shift ? (share ? "(t + 1) / T" : "step t + 1") : axis, label: `Learning rate against ${axis}: the optimum goes ${about}` });
  }
  const { loss } = optimum;
  charts.loss.show([["excess loss", "excess", 0, 0], ["bias", "bias", 1, 1], ["variance", "variance", 2, 2]].map(([name, key, colour, dash]) =>
    ({ name, colour, dash, x: at(loss.steps, 0), y: loss[key] })),
  { x: axis, limits: lossLimits(loss), label: `Excess loss against ${axis}, at the end ${number(optimum.numbers.excess_loss)}: bias ${number(optimum.numbers.bias)}, variance ${number(optimum.numbers.variance)}` });
}

// A rate that goes to 0 would stretch the axis: five decades of the largest are shown at most.
function rateLimits(lines) {
  const good = lines.flatMap((line) => line.rate.eta.filter((one) => one > 0));
  if (!good.length) return null;
  const top = Math.max(...good), own = Math.min(...lines[0].rate.eta.filter((one) => one > 0));
  return [Math.max(own / 3, 1e-5 * top), 2 * top];
}

// A part that is long gone would stretch the axis.
function lossLimits(loss) {
  const good = loss.excess.filter((one, i) => one > 0 && loss.steps[i] > 0);
  if (!good.length) return null;
  return [0.05 * Math.min(...good), 2 * Math.max(...good)];
}

function proof(found) {
  const lines = found.not_checked.length ? [element("h3", {}, "What is not checked"), words(found.not_checked)] : [];
  byId("proof").replaceChildren(words(found.words), ...lines);
}

function proven(found) {
  if (found.error) return;
  proof(found);
  byId("proof").classList.remove("stale");
}

function compared(found) {
  const home = byId("rivals");
  home.classList.remove("stale");
  if (found.error) { home.replaceChildren(element("p", { class: "error" }, found.error.text)); return; }
  rivals = found.rows;
  const { numbers } = optimum;
  const name = (text, i, extra = "") => element("span", {}, swatch(i), text + extra);
  const rows = [[name("optimal", 0), number(numbers.eta_peak), number(numbers.excess_loss, 6), number(numbers.bias, 3), number(numbers.variance, 3), "", ""]];
  for (const row of rivals) {
    const options = Object.entries(row.options).map(([key, given]) => `${key} ${number(given, 3)}`).join(", ");
    rows.push([name(`best ${row.name}`, RIVALS[row.name], row.at_bound ? " (at bound)" : ""), number(row.peak), number(row.excess_loss, 6), number(row.bias, 3), number(row.variance, 3), row.to_optimum, options]);
  }
  home.replaceChildren(table(["schedule", "peak rate", "excess loss", "bias", "variance", "to optimum", "also tuned"], rows, { first: true }));
  draw();
}

function scaled(found) {
  const home = byId("exponents");
  home.classList.remove("stale");
  if (found.error) { home.replaceChildren(element("p", { class: "error" }, found.error.text)); return; }
  const rows = found.rows.map((row) => [row.words, row.fitted === null ? "–" : `${number(row.fitted, 3)} ± ${number(row.stderr, 2)}`, row.theory === null ? "–" : number(row.theory, 4)]);
  home.replaceChildren(table(["", "measured", "theory"], rows),
    element("p", { class: "soft" }, `measured from T = ${found.from.toLocaleString("en")} to ${found.to.toLocaleString("en")}; theory is the limit of large T`),
    ...found.warnings.map((line) => element("p", { class: "warning" }, line)));
}

function take() {
  const given = problem();
  const other = FIELDS.filter((field) => ["a", "b", "T"].includes(field.key) || given[field.field] !== field.start);
  const command = ["optsched solve", ...other.map((field) => `${field.option} ${given[field.field]}`)].join(" ");
  const python = [
    "import optsched", "",
    `problem = optsched.Problem(${other.map((field) => `${field.field}=${given[field.field] === "inf" ? 'float("inf")' : given[field.field]}`).join(", ")})`,
    "solution = optsched.solve(problem)", "print(solution)", 'solution.save("schedule.npz")', ""].join("\n");
  const show = (words, text) => {
    const button = element("button", { type: "button" }, `Copy as ${words}`);
    button.addEventListener("click", () => copy(text, button));
    return element("div", {}, element("div", { class: "row" }, button), element("pre", { tabindex: "0", "aria-label": words }, text));
  };
  const file = (text, name, more) => {
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", () => download(button, name, async () => ({ problem: problem(), ...more })));
    return button;
  };
  byId("take").replaceChildren(element("div", { class: "row" },
    file("Schedule .csv", "export", { format: "csv" }), file("Schedule .json", "export", { format: "json" }), file("Schedule .npz", "export", { format: "npz" }),
    file("PyTorch code", "export", { format: "torch-snippet" }), file("Optax code", "export", { format: "optax-snippet" }), file("Report", "report", { what: "solve" })),
  element("div", { class: "two" }, show("command", command), show("Python", python)));
}

export function start() {
  fields();
  charts = {
    linear: new Chart(byId("rate-linear"), { y: "learning rate η", fromZero: true }),
    log: new Chart(byId("rate-log"), { y: "learning rate η", logX: true, logY: true }),
    loss: new Chart(byId("loss"), { y: "above the noise floor", logX: true, logY: true }),
  };
  diagram = new PhaseDiagram(byId("phase"), (a, b) => {
    set(FIELDS[0], a);
    set(FIELDS[1], b);
    changed();
  });
  for (const radio of document.querySelectorAll("input[name=axis]")) radio.addEventListener("change", () => {
    put({ axis: radio.value === "share" ? "share" : null });
    draw();
  });
}

// Take the fields from the address.
export function follow() {
  for (const field of FIELDS) {
    const given = state.get(field.key);
    set(field, given === "none" ? "" : given ?? field.start);
  }
  const axis = state.get("axis") === "share" ? "share" : "t";
  document.querySelector(`input[name=axis][value=${axis}]`).checked = true;
  asked = performance.now();
  request();
}
