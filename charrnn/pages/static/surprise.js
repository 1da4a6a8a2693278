// surprise.py: the card that shows what was expected at a character; mouse, touch and keyboard.
"use strict";

const models = JSON.parse(document.getElementById("data").textContent);
for (const model of models)
  for (const key of ["came", "bits", "guesses", "p"]) model[key] = numbers(model[key]);

const text = document.querySelector(".text");
const lines = [...text.querySelectorAll(".line")];
const last = models[0].came.length; // the last character; the first one, 0, was not guessed
const card = document.body.appendChild(element("div", { id: "card", hidden: true }));
card.setAttribute("role", "status");
let at = -1; // the character that the card is about
let pinned = false; // chosen by tap or key: the mouse passing by does not change it

/** Unsigned 16-bit numbers, little-endian, in base64. */
function numbers(base64) {
  const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  return Uint16Array.from({ length: bytes.length / 2 }, (_, i) => bytes[2 * i] | (bytes[2 * i + 1] << 8));
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** The index in lines of the line that holds a character: the last that does not begin after it. */
function lineOf(i) {
  let low = 0, high = lines.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (Number(lines[middle].dataset.i) <= i) low = middle; else high = middle - 1;
  }
  return low;
}

function characterAt(i) {
  const line = lines[lineOf(i)];
  return line.children[i - Number(line.dataset.i)];
}

function indexOf(character) {
  const line = character.parentElement;
  return Number(line.dataset.i) + Array.prototype.indexOf.call(line.children, character);
}

/** A row of the card: a character, its bar, its percentage. */
function guess(name, p, isTrue) {
  const bar = element("span", { className: "bar" });
  bar.style.setProperty("--p", p);
  const mark = isTrue ? "\u25b8 " : "";
  return element("li", { className: isTrue ? "guess true" : "guess" },
    element("span", { className: "char" }, mark, element("bdi", {}, name)), bar,
    element("span", { className: "percent" }, percent(p)));
}

function percent(p) {
  return p < 0.0005 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`;
}

/** The likeliest characters, the one that came marked; where it is not among them, below them. */
function guesses(model, i) {
  const list = element("ol", { className: "guesses" });
  const width = model.guesses.length / last;
  const came = model.came[i - 1];
  let found = false;
  for (let k = (i - 1) * width; k < i * width; k++) {
    found ||= model.guesses[k] === came;
    list.append(guess(model.tokens[model.guesses[k]], model.p[k] / 65535, model.guesses[k] === came));
  }
  if (!found) list.append(guess(model.tokens[came], 2 ** -bitsAt(model, i), true));
  return list;
}

function bitsAt(model, i) {
  return model.bits[i - 1] / 512;
}

/** In words, so that the card teaches what a bit is. */
function inWords(bits) {
  if (bits < 0.15) return "it was all but certain";
  if (bits < 0.75) return "it expected that";
  if (bits < 1.5) return "about a coin toss";
  return `one chance in ${(2 ** bits).toLocaleString("en", { maximumSignificantDigits: 2 })}`;
}

function show(i, pin) {
  if (i < 0 || i > last) return;
  text.querySelector(".at")?.classList.remove("at");
  const character = characterAt(i);
  character.classList.add("at");
  at = i;
  pinned = pin;
  const title = element("h3", {}, element("bdi", {}, i ? models[0].tokens[models[0].came[i - 1]] : character.textContent));
  card.replaceChildren(title);
  if (i === 0) title.append(" the first character: nothing was expected yet");
  else if (models.length === 1) {
    const bits = bitsAt(models[0], i);
    title.append(` ${bits.toFixed(2)} bits: ${inWords(bits)}`);
    card.append(guesses(models[0], i));
  } else {
    for (const model of models)
      card.append(element("h4", {}, element("bdi", {}, model.name), `: ${bitsAt(model, i).toFixed(2)} bits`), guesses(model, i));
  }
  card.hidden = false;
  place(character);
}

/** The card below the character, above it where there is no room, always inside the window. */
function place(character) {
  const box = character.getBoundingClientRect();
  const { width, height } = card.getBoundingClientRect();
  const room = document.documentElement.clientWidth;
  const left = Math.max(8, Math.min(box.left - 24, room - width - 8));
  const below = box.bottom + 8;
  const top = below + height > innerHeight && box.top - height - 8 > 0 ? box.top - height - 8 : below;
  card.style.left = `${left + scrollX}px`;
  card.style.top = `${top + scrollY}px`;
}

function hide() {
  card.hidden = true;
  pinned = false;
  text.querySelector(".at")?.classList.remove("at");
}

/** Move to a character by key: it is scrolled into view first, the card follows. */
function go(i) {
  i = Math.max(0, Math.min(last, i));
  text.focus({ preventScroll: true });
  characterAt(i).scrollIntoView({ block: "nearest" , behavior: "instant" });
  show(i, true);
}

/** The character as far along in another line. */
function vertical(step) {
  const here = lineOf(at);
  const line = lines[Math.max(0, Math.min(lines.length - 1, here + step))];
  const along = at - Number(lines[here].dataset.i);
  return Number(line.dataset.i) + Math.min(along, line.children.length - 1);
}

/** The next character, in a direction, that took a model by surprise, or tells two models apart. */
function surprise(step) {
  const far = (i) => models.length === 1 ? bitsAt(models[0], i)
    : Math.abs(bitsAt(models[0], i) - bitsAt(models[1], i)) * 2;
  for (let i = Math.max(at, 0) + step; i > 0 && i <= last; i += step) if (far(i) >= 6) return i;
  return at;
}

const KEYS = {
  ArrowRight: () => at + 1, ArrowLeft: () => at - 1,
  ArrowDown: () => vertical(1), ArrowUp: () => vertical(-1),
  Home: () => Number(lines[lineOf(at)].dataset.i),
  End: () => Number(lines[lineOf(at)].dataset.i) + lines[lineOf(at)].children.length - 1,
  n: () => surprise(1), p: () => surprise(-1),
};

document.addEventListener("keydown", (event) => { // n, p and Escape work wherever one is
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Escape") hide();
  else if (event.key in KEYS && (event.key.length === 1 || text.contains(event.target))) {
    event.preventDefault();
    go(at < 0 && event.key.length > 1 ? 0 : KEYS[event.key]());
  }
});
text.addEventListener("pointerover", (event) => {
  if (event.pointerType === "mouse" && !pinned && event.target.localName === "i")
    show(indexOf(event.target), false);
});
text.addEventListener("pointerleave", () => { if (!pinned) hide(); });
document.addEventListener("click", (event) => {
  if (text.contains(event.target) && event.target.localName === "i") show(indexOf(event.target), true);
  else if (!event.target.closest("a")) hide();
});
addEventListener("hashchange", follow);
// also when a part of the text above comes into sight, and so gets another height than was guessed
new ResizeObserver(() => { if (!card.hidden) place(characterAt(at)); }).observe(text);
addEventListener("resize", () => { if (!card.hidden) place(characterAt(at)); });

/** Show the card of the word that a link leads to. */
function follow() {
  const target = /^#c\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
  if (!target) return;
  text.focus({ preventScroll: true });
  target.scrollIntoView({ block: "center", behavior: "instant" });
  show(indexOf(target), true);
}
for (const link of document.querySelectorAll("aside ol a"))
  link.addEventListener("click", () => setTimeout(follow)); // the same link twice, too
follow();
