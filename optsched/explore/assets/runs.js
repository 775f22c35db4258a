// The second tab: logs are dropped and fitted, and the next run is planned.
import { ask, copy, download, put, said, save, state } from "./base.js";
import { Chart, element, number, table, words } from "./plots.js";

const MOST = 44e6; // bytes of files; a third more in base64
const FIT = [
  { key: "f.warmup", option: "warmup", words: "warm-up steps", hint: "inferred" },
  { key: "f.loss", option: "loss", words: "loss column", hint: "loss" },
  { key: "f.decay", option: "weight-decay", words: "weight decay", hint: "unknown" },
  { key: "f.optimiser", option: "optimiser", words: "optimiser", choices: ["adamw", "adam", "sgd", "other"] },
];
const MORE = [
  { key: "f.rates", option: "rates", words: "constant rate", hint: "in the log" },
  { key: "f.columns", option: "columns", words: "columns", hint: "lr=NAME,loss=NAME" },
  { key: "f.unit", option: "unit", words: "a step counts", choices: ["steps", "samples", "tokens", "epochs"] },
  { key: "f.per", option: "per-update", words: "of them per update", hint: "1" },
  { key: "f.epoch", option: "steps-per-epoch", words: "updates of an epoch", hint: "none" },
  { key: "f.rateof", option: "rate-of", words: "rate of a row is", choices: ["", "next", "last", "mean"] },
  { key: "f.repeats", option: "repeats", words: "repeated steps", choices: ["later", "refuse"] },
  { key: "f.seeds", option: "seeds", words: "runs of one name", choices: ["apart", "refuse", "keep", "average"] },
];
const PLAN = [
  { key: "p.horizon", option: "horizon", words: "steps T", hint: "required" },
  { key: "p.peak", option: "peak", words: "peak rate", hint: "highest pilot" },
  { key: "p.warmup", option: "warmup", words: "warm-up steps", hint: "as the pilots" },
  { key: "p.floor", option: "floor", words: "least rate", hint: "0" },
  { key: "p.level", option: "level", words: "interval", hint: "0.8" },
  { key: "p.decay", option: "weight-decay", words: "weight decay", hint: "as the pilots" },
  { key: "p.shape", option: "shape", words: "shape", choices: ["auto", "simple", "free"] },
  { key: "p.robust", option: "robust", words: "minimise", choices: ["mean", "none", "worst"] },
];
const byId = (id) => document.getElementById(id);
const inputs = {};
let charts, files = [], fit = null, plan = null, busy = false;

function field(one) {
  const id = `field-${one.key.replace(".", "-")}`;
  const input = one.choices
    ? element("select", { id, "aria-describedby": `${id}-error` }, ...one.choices.map((text) => element("option", { value: text }, text || "found")))
    : element("input", { type: "text", id, placeholder: one.hint, autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-error` });
  const wrong = element("p", { id: `${id}-error`, class: "error", "aria-live": "polite" });
  inputs[one.key] = { input, wrong };
  input.addEventListener("input", () => put({ [one.key]: one.choices && input.value === one.choices[0] ? null : input.value.trim() }));
  return element("div", { class: "field" }, element("div", { class: "top" }, element("label", { for: id }, one.words), input), wrong);
}

function options(list) {
  const found = {};
  for (const one of list) {
    const text = inputs[one.key].input.value.trim();
    if (text && !(one.choices && text === one.choices[0])) found[one.option] = text;
  }
  return found;
}

// Put what is wrong beside its field; true if there is one.
function beside(list, error) {
  let found = false;
  for (const one of list) {
    const mine = error?.field && [one.option, one.option.replaceAll("-", "_"), one.option === "per-update" ? "per_step" : ""].includes(error.field);
    inputs[one.key].wrong.textContent = mine ? error.text : "";
    inputs[one.key].input.setAttribute("aria-invalid", Boolean(mine));
    found ||= Boolean(mine);
  }
  return found;
}

async function content(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

// Files of a drop, of folders too, each with its path in them.
async function walked(items) {
  const found = [];
  async function walk(entry, path) {
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      found.push({ name: path + file.name, file });
    } else if (entry.isDirectory) {
      const reader = entry.createReader();
      for (;;) {
        const part = await new Promise((done, failed) => reader.readEntries(done, failed));
        if (!part.length) break;
        for (const one of part) await walk(one, `${path}${entry.name}/`);
      }
    }
  }
  for (const entry of items) await walk(entry, "");
  return found;
}

async function hold(given) {
  if (!given.length) return;
  const size = files.concat(given).reduce((sum, one) => sum + one.file.size, 0);
  if (size > MOST) { byId("fit-status").textContent = `These are ${(size / 1e6).toFixed(0)} MB: the page takes up to ${(MOST / 1e6).toFixed(0)} MB, optsched fit more.`; return; }
  files = files.filter((old) => !given.some((one) => one.name === old.name)).concat(given);
  held();
  await fitNow();
}

function held() {
  byId("held").textContent = files.length ? `${files.length} file${files.length > 1 ? "s" : ""}: ${files.slice(0, 6).map((one) => one.name).join(", ")}${files.length > 6 ? ", ..." : ""}` : "Nothing yet. What you drop stays on this machine.";
  byId("fit-button").disabled = !files.length || busy;
  byId("forget").disabled = !files.length;
}

async function packed() {
  return Promise.all(files.map(async (one) => ({ name: one.name, data: await content(one.file) })));
}

async function fitNow() {
  if (busy || !files.length) return;
  busy = true;
  held();
  byId("fit-status").textContent = "reading and fitting";
  byId("fit-result").classList.add("stale");
  let found;
  try {
    found = await ask("fit", { files: await packed(), options: options([...FIT, ...MORE]) });
  } catch (error) {
    found = { error: { text: `a file cannot be read any more: ${error.message}` } };
  }
  busy = false;
  held();
  document.body.dataset.fits = Number(document.body.dataset.fits ?? 0) + 1;
  if (!found) { byId("fit-status").textContent = ""; return; }
  byId("fit-result").classList.remove("stale");
  if (found.error) {
    beside([...FIT, ...MORE], found.error);
    byId("fit-status").textContent = said(found.error);
    return;
  }
  beside([...FIT, ...MORE], null);
  understood(found.files);
  if (found.problem) {
    fit = null;
    byId("fit-result").hidden = true;
    byId("plan-result").hidden = true;
    byId("fit-status").textContent = found.problem;
    return;
  }
  fit = found;
  fitted();
  await planNow();
}

function understood(rows) {
  byId("understood-card").hidden = false;
  const bad = rows.filter((row) => !row.ok), good = rows.filter((row) => row.ok);
  const show = (row) => element("div", { class: row.ok ? "file" : "file bad" }, element("p", {}, element("b", {}, row.ok ? "read: " : "not used: "), row.ok ? "" : row.name), ...row.lines.map((line) => element("p", {}, line)));
  const details = (title, list, open) => (list.length ? element("details", { open: open && list.length < 6 }, element("summary", {}, title), ...list.map(show)) : null);
  byId("understood").replaceChildren(...[details(`${good.length} read`, good, true), details(`${bad.length} not used`, bad, true)].filter(Boolean));
}

function fitted() {
  byId("fit-result").hidden = false;
  byId("fit-status").textContent = `Law ${fit.law.law.name}, fitted to ${fit.runs.length} run${fit.runs.length > 1 ? "s" : ""}: misfit ${number(1e3 * fit.misfit, 2)}e-3 nats`;
  const losses = fit.runs.flatMap((run) => run.loss).sort((x, y) => x - y);
  const low = losses[0], high = losses[Math.floor(0.93 * (losses.length - 1))], room = 0.06 * (high - low || 1);
  charts.loss.show(fit.runs.flatMap((run, i) => [
    { name: run.name, colour: i, dash: 0, points: true, x: run.steps, y: run.loss },
    { name: `law, ${run.name}`, colour: i, dash: i && 1, x: run.steps, y: run.law },
  ]), { limits: [low - room, high + room], label: `Losses of ${fit.runs.length} runs and the law` });
  const wide = 5e3 * fit.misfit;
  charts.residual.show(fit.runs.map((run, i) => ({ name: run.name, colour: i, dash: i && 1, x: run.steps, y: run.residual.map((one) => (one === null ? null : 1e3 * one)) })),
    { limits: [-wide, wide], label: `Law minus loss in 1e-3 nats: root mean square ${number(1e3 * fit.misfit, 2)}` });
  warnings("law-warnings", [...new Set([...fit.warnings, ...(fit.failed ? [fit.failed] : [])])]);
  const [first] = fit.tables;
  byId("law-table").replaceChildren(table(first.titles, first.rows));
  const own = new Set(fit.files.flatMap((row) => row.lines));
  byId("law-lines").replaceChildren(words(fit.lines.filter((line) => !own.has(line))));
  const report = element("button", { type: "button" }, "Report of the fit");
  report.addEventListener("click", () => download(report, "report", async () => ({ what: "fit", files: await packed(), options: options([...FIT, ...MORE]) })));
  const law = element("button", { type: "button", onclick: () => save("law.json", JSON.stringify(fit.law, null, 1), "application/json") }, "Law file");
  byId("law-take").replaceChildren(law, report);
  if (!inputs["p.horizon"].input.value) {
    inputs["p.horizon"].input.value = String(4 * fit.longest);
    put({ "p.horizon": inputs["p.horizon"].input.value });
  }
}

function warnings(id, lines) { byId(id).replaceChildren(...lines.map((line) => element("p", { class: "warning" }, line))); }

async function planNow() {
  if (!fit || busy) return;
  busy = true;
  byId("plan-button").disabled = true;
  byId("plan-status").textContent = "planning";
  byId("plan-result").classList.add("stale");
  const given = { law: fit.law, options: options(PLAN), extrapolate: byId("extrapolate").checked };
  const found = await ask("plan", given);
  busy = false;
  byId("plan-button").disabled = false;
  byId("plan-result").classList.remove("stale");
  byId("plan-status").textContent = "";
  document.body.dataset.plans = Number(document.body.dataset.plans ?? 0) + 1;
  if (!found) return;
  const near = beside(PLAN, found.error);
  if (found.error) {
    byId("plan-result").hidden = true;
    byId("plan-status").textContent = near ? "" : said(found.error);
    return;
  }
  plan = { ...found, given };
  planned();
}

function planned() {
  byId("plan-result").hidden = false;
  const order = plan.curves;
  charts.rate.show([...order].reverse().map((one) => { const i = order.indexOf(one); return { name: one.name, colour: i, dash: i && 1, width: i ? 1.3 : 2.6, x: one.rate.steps, y: one.rate.eta }; }), { label: plan.lines.find((line) => line.startsWith("plan: ")) ?? "the plan" });
  const best = order[0], ends = order.map((one) => one.loss.at(-1));
  const start = best.loss[Math.floor(best.loss.length / 2)];
  const low = best.lower.at(-1), high = Math.max(start, ...ends);
  const late = (one) => one.steps.map((_, i) => i).filter((i) => one.steps[i] >= best.steps[Math.floor(best.steps.length / 2)]);
  const some = (values, keep) => keep.map((i) => values[i]);
  charts.predicted.show([...order].reverse().map((one) => { const i = order.indexOf(one), keep = late(one); return { name: one.name, colour: i, dash: i && 1, width: i ? 1.3 : 2.6, x: some(one.steps, keep), y: some(one.loss, keep), band: i ? null : [some(one.lower, keep), some(one.upper, keep)] }; }),
    { limits: [low - 0.04 * (high - low), high + 0.04 * (high - low)], label: `Predicted loss of the plan, at the end ${number(ends[0], 5)}` });
  warnings("plan-warnings", plan.warnings);
  const [first] = plan.tables;
  byId("plan-table").replaceChildren(table(first.titles, first.rows, { first: first.rows[0]?.[0] === "plan" }));
  byId("plan-lines").replaceChildren(words(plan.lines));
  const make = (text, form) => {
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", () => download(button, "export", async () => ({ schedule: plan.schedule, format: form })));
    return button;
  };
  const report = element("button", { type: "button" }, "Report");
  report.addEventListener("click", () => download(report, "report", async () => ({ what: "plan", ...plan.given })));
  byId("plan-take").replaceChildren(make("Schedule .csv", "csv"), make("Schedule .json", "json"), make("Schedule .npz", "npz"), make("PyTorch code", "torch-snippet"), make("Optax code", "optax-snippet"), make("Keras code", "keras-snippet"), report);
  command();
}

function quoted(text) { return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`; }

function command() {
  const names = fit.files.filter((row) => row.ok).map((row) => row.name);
  const spelled = (given) => Object.entries(given).map(([key, value]) => `--${key} ${quoted(value)}`);
  const lines = [
    ["optsched fit", ...names.map(quoted), ...spelled(options([...FIT, ...MORE])), "--output law.json"].join(" "),
    ["optsched plan --law law.json", ...spelled(plan.given.options), ...(plan.given.extrapolate ? ["--extrapolate"] : []), "--output schedule.json"].join(" "),
  ].join("\n");
  const button = element("button", { type: "button" }, "Copy as command");
  button.addEventListener("click", () => copy(lines, button));
  byId("plan-command").replaceChildren(element("div", { class: "row" }, button), element("pre", { tabindex: "0", "aria-label": "commands" }, lines));
}

export function start() {
  byId("fit-fields").append(...FIT.map(field), element("details", {}, element("summary", {}, "How the logs are read"), ...MORE.map(field)));
  byId("plan-fields").append(...PLAN.map(field), element("div", { class: "field" }, element("label", {}, element("input", { type: "checkbox", id: "extrapolate" }), " allow a peak above the pilots'")));
  byId("extrapolate").addEventListener("change", (event) => put({ "p.extrapolate": event.target.checked ? "1" : null }));
  charts = {
    loss: new Chart(byId("fit-loss"), { y: "loss (nats)" }),
    residual: new Chart(byId("fit-residual"), { y: "1e-3 nats" }),
    rate: new Chart(byId("plan-rate"), { y: "learning rate η", fromZero: true }),
    predicted: new Chart(byId("plan-loss"), { y: "predicted loss (nats)" }),
  };
  byId("logs").addEventListener("submit", (event) => { event.preventDefault(); fitNow(); });
  byId("plan").addEventListener("submit", (event) => { event.preventDefault(); planNow(); });
  byId("forget").addEventListener("click", () => { files = []; held(); });
  for (const id of ["choose", "choose-folder"]) byId(id).addEventListener("change", async (event) => {
    const given = [...event.target.files].map((file) => ({ name: file.webkitRelativePath || file.name, file }));
    event.target.value = "";
    await hold(given);
  });
  const drop = byId("drop"), panel = byId("panel-runs");
  for (const name of ["dragenter", "dragover"]) panel.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  panel.addEventListener("dragleave", (event) => { if (!panel.contains(event.relatedTarget)) drop.classList.remove("over"); });
  panel.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const given = entries.length ? await walked(entries).catch(() => null) : [...event.dataTransfer.files].map((file) => ({ name: file.name, file }));
    if (given) await hold(given);
    else byId("fit-status").textContent = "what was dropped cannot be read";
  });
}

export function follow() {
  for (const one of [...FIT, ...MORE, ...PLAN]) inputs[one.key].input.value = state.get(one.key) ?? (one.choices ? one.choices[0] : "");
  for (const one of [...FIT, ...MORE, ...PLAN]) if (one.choices && inputs[one.key].input.selectedIndex < 0) inputs[one.key].input.selectedIndex = 0;
  byId("extrapolate").checked = state.get("p.extrapolate") === "1";
}

export function shown() { for (const chart of Object.values(charts)) chart.fit(); }
