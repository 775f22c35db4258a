// The state in the address, questions to the server, and what is copied or saved.

export const state = new Map();
let writing = 0;

export function put(changes) {
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") state.delete(key);
    else state.set(key, String(value));
  }
  clearTimeout(writing);
  writing = setTimeout(write, 200);
}

export function write() {
  const text = new URLSearchParams([...state]).toString();
  history.replaceState(null, "", "#" + text);
}

export function read() {
  state.clear();
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) if (key.length < 40 && value.length < 20000) state.set(key, value);
}

const trouble = document.getElementById("trouble");
export function complain(text) {
  trouble.textContent = text ?? "";
  trouble.hidden = !text;
}

// One question; the answer may be {error: {field, text}}. Null if it was given up.
export async function ask(name, body, signal) {
  try {
    const response = await fetch(`api/${name}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
    });
    if (!response.ok) {
      complain(await response.text());
      return null;
    }
    const found = await response.json();
    complain(null);
    return found;
  } catch (error) {
    if (error.name === "AbortError") return null;
    complain("The server does not answer: start optsched explore again, and open the address that it prints.");
    return null;
  }
}

// Of questions that follow each other fast the last one counts: one is out, and one waits.
export class Latest {
  constructor(name, answered, patience = 2000) {
    Object.assign(this, { name, answered, patience, out: null, next: null, serial: 0 });
  }

  ask(body) {
    this.next = body;
    if (!this.out) this.go();
    else if (performance.now() - this.began > this.patience) this.out.abort();
  }

  drop() {
    this.next = null;
    this.serial += 1;
    this.out?.abort();
  }

  async go() {
    while (this.next) {
      const body = this.next, serial = this.serial;
      this.next = null;
      this.out = new AbortController();
      this.began = performance.now();
      const found = await ask(this.name, body, this.out.signal);
      this.out = null;
      if (found && serial === this.serial) this.answered(found, body);
    }
  }
}

export async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copying is not allowed here";
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}

export function save(name, content, kind = "application/octet-stream") {
  const url = URL.createObjectURL(new Blob([content], { type: kind }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export const said = (error) => (error.field ? `${error.field}: ${error.text}` : error.text);

// Ask for a file and save it; the button says what went wrong.
export async function download(button, name, body) {
  const before = button.textContent;
  button.disabled = true;
  button.textContent = "making it";
  const found = await ask(name, await body());
  button.disabled = false;
  button.textContent = before;
  if (found?.error) { button.textContent = said(found.error); setTimeout(() => { button.textContent = before; }, 6000); }
  if (found?.data !== undefined) save(found.name, Uint8Array.from(atob(found.data), (letter) => letter.charCodeAt(0)));
}
