// The tabs, and what they follow in the address.
import { copy, put, read, state, write } from "./base.js";
import * as model from "./model.js";
import * as own from "./own.js";
import * as runs from "./runs.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const parts = { "tab-model": model, "tab-runs": runs, "tab-own": own };

function select(tab, { focus = false } = {}) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", chosen);
    one.tabIndex = chosen ? 0 : -1;
    document.getElementById(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  put({ tab: tab.id === "tab-model" ? null : tab.id.slice(4) });
  parts[tab.id]?.shown?.();
}

function follow() {
  read();
  for (const part of Object.values(parts)) part.follow();
  select(document.getElementById(`tab-${state.get("tab") ?? "model"}`) ?? tabs[0]);
}

for (const tab of tabs) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? tabs.length - 1 : by ? (tabs.indexOf(tab) + by + tabs.length) % tabs.length : -1;
    if (to < 0) return;
    event.preventDefault();
    select(tabs[to], { focus: true });
  });
}
document.getElementById("link").addEventListener("click", (event) => {
  write();
  copy(location.href, event.currentTarget);
});
addEventListener("hashchange", follow);
read();
for (const part of Object.values(parts)) part.start();
follow();
