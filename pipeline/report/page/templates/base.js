// What every page shares: helpers, the theme, and the keyboard.
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
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${dark ? "light" : "dark"} theme`);
    button.dataset.next = dark ? "light" : "dark";
  };
  button.addEventListener("click", () => {
    chosen = button.dataset.next;
    try { localStorage.setItem("theme", chosen); } catch { /* see above */ }
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}

// ---------------------------------------------------------------- keyboard

/** Make a group of buttons or links one stop for Tab; the arrow keys, Home and End move inside it. */
function rove(group, selector) {
  const all = () => [...group.querySelectorAll(selector)];
  const stop = (element) => { for (const each of all()) each.tabIndex = each === element ? 0 : -1; };
  group.addEventListener("keydown", (event) => {
    const elements = all(), place = elements.indexOf(event.target), last = elements.length - 1;
    if (place < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = { ArrowRight: place + 1, ArrowDown: place + 1, ArrowLeft: place - 1, ArrowUp: place - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    elements[clamp(to, 0, last)].focus();
  });
  group.addEventListener("focusin", (event) => { if (all().includes(event.target)) stop(event.target); });
  stop(all()[0]);
}

/** Tables are a stop for Tab only if there is something to scroll. */
function startTables() {
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) target.tabIndex = target.scrollWidth > target.clientWidth ? 0 : -1;
  });
  for (const each of document.querySelectorAll(".scroll")) watch.observe(each);
}

const headerHeight = () => document.querySelector(".top")?.offsetHeight ?? 0;

/** Show the clip that an address names, and say so if it is not here. */
async function followLink(galleries, elsewhere, address) {
  const state = new URLSearchParams(new URL(address).hash.slice(1)), missing = document.getElementById("missing");
  let found = !state.has("clip");
  for (const gallery of galleries) found = found || await gallery.follow(state);
  missing.textContent = found ? "" : `There is no clip ${state.get("clip")} on this page. ${elsewhere}`;
  missing.hidden = found;
  if (!found) missing.scrollIntoView({ block: "center" });
}
