/* The page: a text, what the model expects after it, and the worker that reads and writes. */
function startPage(script) {
  const $ = (id) => document.getElementById(id);
  const model = JSON.parse($("model").textContent);
  const { tokens } = model;
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const text = $("text"), marks = $("marks");

  /* The text, a character at a time: {char, id, written, bits}. id is undefined where the model
   * never saw the character (it then reads U+FFFD if it knows that one, else nothing), written is
   * true for the model's own, bits is its surprise, once known. */
  let chars = [];
  let logits = null; // scores of what comes next
  let job = null; // what the worker was last asked for

  const typedChar = (char) => ({ char, id: idOf.get(char), written: false, bits: null });
  const idRead = ({ id }) => id ?? idOf.get("\ufffd");
  const known = () => chars.filter((char) => idRead(char) !== undefined);
  // one character for one: a text field makes "\r\n" one line end, and two halves of a pair one
  const shown = (char) => (char === "\r" ? "\u240d" : /[\ud800-\udfff]/u.test(char) ? "\ufffd" : char);
  const joined = (some) => some.map(({ char }) => shown(char)).join("");

  function say(words) { // the same again would be read out again
    if ($("status").textContent !== words) $("status").textContent = words;
  }

  /* ---- the worker ---- */

  const blob = new Blob([script], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(blob));
  worker.postMessage({ model, base64: $("weights").textContent });
  worker.onerror = () => say("The model did not start in this browser.");

  /* Have the worker read the text as it is now, and write `length` characters more; `words` are
   * said when that is done. */
  function ask(length = 0, words = "") {
    const asked = known(), number = (job?.number ?? 0) + 1;
    job = { number, asked, length, words, read: asked.length, began: performance.now() };
    const ids = asked.map(idRead), seed = Number($("seed").value);
    const from = asked.filter(({ bits }) => bits !== null).length; // where surprises are not known
    worker.postMessage({ job: number, ids, from, length, seed, ...settings() });
    showButtons();
    showWords([]);
  }

  const writing = () => job.length > 0;

  function showButtons() {
    $("write").textContent = writing() ? "Stop" : "Write";
    $("back").disabled = writing() || !chars.at(-1)?.written;
  }

  worker.onmessage = ({ data }) => {
    const { job: number, from, bits, written, logits: after, done, words } = data;
    if (number !== job.number) return; // an answer to what is no longer asked
    if (words) return showWords(words);
    const added = written.map((id) => ({ char: tokens[id], id, written: true, bits: null }));
    job.asked.push(...added);
    bits.forEach((some, i) => { job.asked[from + i].bits = some; });
    logits = after;
    append(added);
    const first = chars.length - added.length;
    paint($("colour").checked && bits.length > 0 ? chars.indexOf(job.asked[from]) : first);
    report(from + bits.length, done);
    if (done) job.length = 0;
    if (done || !writing() || !calm.matches) showGuesses(done);
    showButtons();
  };

  /* Say what was done: once, at the end, so that a screen reader is not flooded. */
  function report(read, done) {
    const wrote = job.asked.length - job.read;
    if (!done && read >= job.read) {
      say("Writing …");
    } else if (!done) {
      say(`Reading: ${10 * Math.floor((10 * read) / job.read)} %`);
    } else if (writing()) {
      const speed = Math.round((1000 * wrote) / (performance.now() - job.began));
      const words = `${wrote.toLocaleString("en")} characters with seed ${$("seed").value}`;
      say(`Wrote ${words}, ${speed} a second.`);
    } else {
      say(job.words || aboutStrange() || "Ready.");
    }
    if (done) showMean();
  }

  /* Which characters of the text the model never saw, in words. */
  function aboutStrange() {
    const strange = new Set(chars.filter(({ id }) => id === undefined).map(({ char }) => char));
    if (strange.size === 0) return "";
    const names = [...strange].slice(0, 8).map(nameOf).join(" ") + (strange.size > 8 ? " …" : "");
    const read = idOf.has("\ufffd") ? "reads as unknown" : "leaves out";
    return `The model never saw, and ${read}: ${names}`;
  }

  /* ---- the text ---- */

  const paper = text.closest(".paper");
  let follows = true; // the end of the text is in sight, and stays there
  paper.addEventListener("scroll", () => {
    follows = paper.scrollHeight - paper.scrollTop - paper.clientHeight < 40;
  });

  /* Characters at the end, without moving the caret. */
  function append(added) {
    if (added.length === 0) return;
    for (const char of added) chars.push(char);
    const end = text.value.length;
    text.setRangeText(joined(added), end, end, "preserve");
    if (follows) requestAnimationFrame(() => { paper.scrollTop = paper.scrollHeight; });
  }

  /* What was typed, pasted or deleted: characters before and after it stay what they were. */
  function edited() {
    const now = [...text.value], least = Math.min(now.length, chars.length);
    const same = (i, j) => now[i] === shown(chars[j].char);
    let head = 0, tail = 0;
    while (head < least && same(head, head)) head++;
    while (tail < least - head && same(now.length - 1 - tail, chars.length - 1 - tail)) tail++;
    const before = chars.slice(0, head), after = chars.slice(chars.length - tail);
    for (const char of after) char.bits = null;
    chars = [...before, ...now.slice(head, now.length - tail).map(typedChar), ...after];
    paint(head);
    ask();
  }

  let runs = []; // stretches of the text with one mark: {node, end}

  function markOf({ id, written, bits }) {
    if (id === undefined) return "strange";
    if ($("colour").checked) return bits === null ? "" : `s${Math.min(9, Math.floor(bits))}`;
    return written ? "written" : "";
  }

  /* Mark the text anew from a character on; those before it have not changed. */
  function paint(from) {
    while (runs.length > 0 && (runs.at(-1).end >= from)) runs.pop().node.remove();
    for (let i = runs.at(-1)?.end ?? 0; i < chars.length;) {
      const mark = markOf(chars[i]), start = i;
      while (i < chars.length && markOf(chars[i]) === mark) i++;
      const node = document.createElement(mark === "" ? "span" : "i");
      node.className = mark;
      node.textContent = joined(chars.slice(start, i));
      marks.insertBefore(node, marks.lastChild);
      runs.push({ node, end: i });
    }
  }

  /* ---- what comes next ---- */

  const NAMES = {
    "\n": "newline", "\r": "return", "\t": "tab", " ": "space", "\u00a0": "no-break space",
  };

  /* A character, or its name where it cannot be seen or would act on what stands beside it. */
  function nameOf(char) {
    if (NAMES[char]) return NAMES[char];
    const code = char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    return /[\p{C}\p{Z}\p{M}]/u.test(char) ? `U+${code}` : char;
  }

  const buttons = Array.from({ length: Math.min(5, tokens.length) }, () => {
    const button = document.createElement("button");
    button.className = "guess";
    for (const [tag, name] of [["bdi", "char"], ["span", "bar"], ["span", "percent"]]) {
      const part = document.createElement(tag);
      part.className = name;
      button.append(part);
    }
    button.addEventListener("click", () => choose(button.token));
    const item = document.createElement("li");
    item.append(button);
    $("guesses").append(item);
    return button;
  });

  let shownAt = 0;

  function showGuesses(now = true) {
    if (logits === null || (!now && performance.now() - shownAt < 100)) return; // too fast to read
    shownAt = performance.now();
    const { temperature, top_k } = settings();
    const drawn = choices(logits, temperature, top_k);
    likeliest(logits, buttons.length).forEach((id, i) => {
      const chance = 2 ** -surprise(logits, id), place = drawn.ids.indexOf(id);
      const words = `${(100 * chance).toFixed(1)}%`;
      const [char, bar, percent] = buttons[i].children, name = nameOf(tokens[id]);
      buttons[i].token = tokens[id];
      char.textContent = name;
      char.classList.toggle("unseen-char", name !== tokens[id]);
      bar.style.setProperty("--p", chance.toFixed(4));
      bar.style.setProperty("--drawn", (place < 0 ? 0 : drawn.chances[place]).toFixed(4));
      percent.textContent = words;
      buttons[i].setAttribute("aria-label", `Add ${name}, ${words}`);
    });
  }

  function choose(word) {
    const added = [...word].map(typedChar);
    append(added);
    paint(chars.length - added.length);
    ask();
  }

  /* Buttons with whole words; the empty one, where a word may just have ended, is left out. */
  function showWords(words) {
    $("words").replaceChildren(...words.filter(({ word }) => word !== "").map(({ word, chance }) => {
      const button = document.createElement("button"), name = document.createElement("bdi");
      const likely = `${(100 * chance).toFixed(1)}%`, said = [...word].map(nameOf).join("");
      button.className = "word";
      name.textContent = said;
      button.append(name, ` ${likely}`);
      button.setAttribute("aria-label", `Add ${said}, ${likely}`);
      button.addEventListener("click", () => choose(word));
      return button;
    }));
  }

  /* ---- what can be set ---- */

  const most = Math.min(31, tokens.length); // the last place of the slider means all
  $("top_k").max = most;
  $("top_k").value = Math.min(5, most);

  function settings() {
    const top_k = Number($("top_k").value);
    return { temperature: Number($("temperature").value), top_k: top_k >= most ? 0 : top_k };
  }

  function showSettings() {
    const { temperature, top_k } = settings();
    const words = {
      temperature: temperature.toFixed(2),
      top_k: top_k === 0 ? `all ${tokens.length.toLocaleString("en")}` : String(top_k),
      length: `${Number($("length").value).toLocaleString("en")} characters`,
    };
    for (const [id, value] of Object.entries(words)) {
      document.querySelector(`output[for=${id}]`).textContent = value;
      $(id).setAttribute("aria-valuetext", value);
    }
    worker.postMessage(settings());
    showGuesses();
  }

  /* How well the model knew what was typed: the loss, in bits. */
  function showMean() {
    const read = chars.filter(({ bits, written }) => bits !== null && !written);
    const mean = read.reduce((sum, { bits }) => sum + bits, 0) / read.length;
    const held_out = model.bits === null ? "" : `; its held-out text had ${model.bits.toFixed(2)}`;
    $("mean").textContent = read.length === 0 ? ""
      : `What was typed has ${mean.toFixed(2)} bits per character${held_out}.`;
  }

  /* ---- buttons and keys ---- */

  function write() {
    if (writing()) return stop();
    if ($("fresh").checked) $("seed").value = Math.floor(Math.random() * 1e6);
    if (!$("seed").checkValidity() || $("seed").value === "") $("seed").value = 1;
    const room = text.maxLength - text.value.length;
    if (room > 0) ask(Math.min(Number($("length").value), room));
    else say("The field is full: delete some of the text, or take back what was written.");
  }

  function stop() {
    if (writing()) ask(0, `Stopped after ${job.asked.length - job.read} characters.`);
  }

  /* What the model wrote last goes; what was typed before it stays. */
  function takeBack() {
    while (chars.at(-1)?.written) chars.pop();
    text.value = joined(chars);
    paint(chars.length);
    ask();
    text.focus();
  }

  async function copy() {
    const all = chars.map(({ char }) => char).join("");
    try {
      await navigator.clipboard.writeText(all);
    } catch { // not allowed for a file in some browsers
      text.focus();
      text.select();
      document.execCommand("copy");
    }
    say(`Copied ${chars.length.toLocaleString("en")} characters.`);
  }

  text.addEventListener("input", edited);
  $("write").addEventListener("click", write);
  $("back").addEventListener("click", takeBack);
  $("copy").addEventListener("click", copy);
  $("colour").addEventListener("change", () => {
    $("surprise").hidden = !$("colour").checked;
    paint(0);
  });
  for (const id of ["temperature", "top_k", "length"]) {
    $(id).addEventListener("input", showSettings);
  }
  $("seed").addEventListener("input", () => { $("fresh").checked = false; });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target === text) {
      event.preventDefault();
      write();
    }
  });

  /* ---- begin ---- */

  for (let bits = 0; bits < 10; bits++) {
    const shade = document.createElement("i");
    shade.className = `s${bits}`;
    shade.textContent = bits < 9 ? bits : "9+";
    document.querySelector(".key").append(shade);
  }
  const n_units = (model.n_hidden * model.n_layers).toLocaleString("en");
  const kept = model.cell === "lstm" ? "two numbers, h and c," : "a number, h,";
  $("state-size").textContent = `${kept} for each of its ${n_units} units`;
  $("cell").textContent = CELLS[model.cell].toString().replace(/^ {2}/gm, "");
  marks.append("\u200b"); // a last line that is empty has a height too
  chars = [...JSON.parse($("prime").textContent)].map(typedChar);
  text.value = joined(chars);
  showSettings();
  edited();
}

if (typeof document === "undefined") startWorker();
else startPage(document.currentScript.textContent);
