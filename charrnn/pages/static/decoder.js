/* State -> text: what charrnn/writing/ does, for a browser. The page and its worker both
 * have it. One character at a time, and nothing but arrays of numbers. */
"use strict";

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/* One layer's step, for each kind of cell. x: W_ih times what comes from below, plus its bias; y:
 * W_hh times the layer's own h of the character before, plus its bias; both hold one stretch of n
 * numbers for each gate, in PyTorch's order. h and c are the state; they change in place. */
const CELLS = {
  // Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000
  lstm(x, y, h, c, n) {
    for (let j = 0; j < n; j++) {
      const input = sigmoid(x[j] + y[j]);
      const forget = sigmoid(x[n + j] + y[n + j]);
      const candidate = Math.tanh(x[2 * n + j] + y[2 * n + j]);
      const output = sigmoid(x[3 * n + j] + y[3 * n + j]);
      c[j] = forget * c[j] + input * candidate;
      h[j] = output * Math.tanh(c[j]);
    }
  },
  // Cho et al. 2014, as nn.GRU has it
  gru(x, y, h, c, n) {
    for (let j = 0; j < n; j++) {
      const reset = sigmoid(x[j] + y[j]);
      const update = sigmoid(x[n + j] + y[n + j]);
      const candidate = Math.tanh(x[2 * n + j] + reset * y[2 * n + j]);
      h[j] = (1 - update) * candidate + update * h[j];
    }
  },
  // Elman 1990
  rnn(x, y, h, c, n) {
    for (let j = 0; j < n; j++) {
      h[j] = Math.tanh(x[j] + y[j]);
    }
  },
};

/* A matrix laid out for products with a vector: the rows eight at a time, their numbers side by
 * side. One pass over memory then feeds eight sums that do not wait for each other, which is about
 * twice as fast as row by row. */
class Matrix {
  constructor(weight, rows, columns, bias) {
    this.columns = columns;
    this.weight = new Float32Array(Math.ceil(rows / 8) * 8 * columns);
    this.bias = new Float32Array(Math.ceil(rows / 8) * 8);
    this.bias.set(bias);
    for (let row = 0; row < rows; row++) {
      const first = (row - (row % 8)) * columns + (row % 8);
      for (let k = 0; k < columns; k++) this.weight[first + 8 * k] = weight[row * columns + k];
    }
  }

  /* out = weight x + bias; out has room for a multiple of eight rows. */
  times(x, out) {
    const { weight, bias, columns } = this;
    for (let row = 0, w = 0; row < out.length; row += 8) {
      let a = bias[row], b = bias[row + 1], c = bias[row + 2], d = bias[row + 3];
      let e = bias[row + 4], f = bias[row + 5], g = bias[row + 6], h = bias[row + 7];
      for (let k = 0; k < columns; k++, w += 8) {
        const number = x[k];
        a += weight[w] * number;
        b += weight[w + 1] * number;
        c += weight[w + 2] * number;
        d += weight[w + 3] * number;
        e += weight[w + 4] * number;
        f += weight[w + 5] * number;
        g += weight[w + 6] * number;
        h += weight[w + 7] * number;
      }
      out[row] = a;
      out[row + 1] = b;
      out[row + 2] = c;
      out[row + 3] = d;
      out[row + 4] = e;
      out[row + 5] = f;
      out[row + 6] = g;
      out[row + 7] = h;
    }
  }
}

/* A model and its state. `step(id)` reads one character; `logits` are then the scores of each
 * next one. */
class Decoder {
  /* model: {cell, n_hidden, n_layers, tokens, ...}; weights: by their names in the checkpoint. */
  constructor(model, weights) {
    const n = model.n_hidden, n_tokens = model.tokens.length;
    const n_gates = weights["lstm.bias_ih_l0"].length;
    this.n = n;
    this.update = CELLS[model.cell];
    this.layers = [];
    for (let l = 0; l < model.n_layers; l++) {
      const [w_ih, b_ih] = [weights[`lstm.weight_ih_l${l}`], weights[`lstm.bias_ih_l${l}`]];
      const [w_hh, b_hh] = [weights[`lstm.weight_hh_l${l}`], weights[`lstm.bias_hh_l${l}`]];
      const room = () => new Float32Array(Math.ceil(n_gates / 8) * 8);
      const layer = { x: room(), y: room(), h: new Float32Array(n), c: new Float32Array(n) };
      layer.of_h = new Matrix(w_hh, n_gates, n, b_hh);
      // a one-hot character times W is a column of W, so layer 0 needs a table and no product
      if (l === 0) layer.table = transposed(w_ih, n_gates, n_tokens, b_ih);
      else layer.of_x = new Matrix(w_ih, n_gates, n, b_ih);
      this.layers.push(layer);
    }
    this.of_top = new Matrix(weights["fc.weight"], n_tokens, n, weights["fc.bias"]);
    this.scores = new Float32Array(Math.ceil(n_tokens / 8) * 8);
    this.logits = this.scores.subarray(0, n_tokens);
  }

  /* Read the character with this id. */
  step(id) {
    let below = null;
    for (const layer of this.layers) {
      let x = layer.x;
      if (layer.table) x = layer.table[id];
      else layer.of_x.times(below, x);
      layer.of_h.times(layer.h, layer.y);
      this.update(x, layer.y, layer.h, layer.c, this.n);
      below = layer.h;
    }
    this.of_top.times(below, this.scores);
  }

  /* A copy of the state and of the logits, to come back to. */
  save() {
    const layers = this.layers.map(({ h, c }) => ({ h: h.slice(), c: c.slice() }));
    return { layers, logits: this.logits.slice() };
  }

  restore(saved) {
    saved.layers.forEach(({ h, c }, l) => {
      this.layers[l].h.set(h);
      this.layers[l].c.set(c);
    });
    this.logits.set(saved.logits);
  }
}

/* The columns of a matrix, each plus the bias. */
function transposed(weight, rows, columns, bias) {
  return Array.from({ length: columns }, (_, column) =>
    bias.map((number, row) => number + weight[row * columns + column]));
}

/* The weights in a page, by name, as float32. Bias vectors are float32 there; matrices are
 * float16, or int8 with a float32 scale for each row, the scales first. All little-endian, one
 * after the other, as base64. */
function unpack(model, base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  let read = 0;
  const take = (Type, count) => {
    const end = read + count * Type.BYTES_PER_ELEMENT;
    const taken = new Type(bytes.slice(read, end).buffer);
    read = end;
    return taken;
  };
  const halves = Float32Array.from({ length: 65536 }, (_, bits) => half(bits));
  const weights = {};
  for (const [name, [rows, columns]] of model.shapes) {
    if (columns === undefined) {
      weights[name] = take(Float32Array, rows);
      continue;
    }
    const numbers = weights[name] = new Float32Array(rows * columns);
    if (model.weights === "float16") {
      const bits = take(Uint16Array, rows * columns);
      for (let i = 0; i < numbers.length; i++) numbers[i] = halves[bits[i]];
    } else {
      const scales = take(Float32Array, rows), steps = take(Int8Array, rows * columns);
      for (let row = 0, i = 0; row < rows; row++) {
        for (let k = 0; k < columns; k++, i++) numbers[i] = scales[row] * steps[i];
      }
    }
  }
  return weights;
}

/* The number that 16 bits stand for: a sign, 5 bits of exponent, 10 of fraction (IEEE 754). */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
}

/* Ids of the k largest logits, the largest first. */
function likeliest(logits, k) {
  const best = [];
  for (let id = 0; id < logits.length; id++) {
    if (best.length === k && logits[id] <= logits[best[k - 1]]) continue;
    let place = best.length;
    while (place > 0 && logits[best[place - 1]] < logits[id]) place--;
    best.splice(place, 0, id);
    if (best.length > k) best.pop();
  }
  return best;
}

/* What is drawn from, as sample.py has it: first temperature, then the top_k likeliest (0: all).
 * Their ids and chances, which sum to 1. Temperature 0 leaves only the likeliest. */
function choices(logits, temperature, top_k) {
  if (temperature < 1e-6) return { ids: likeliest(logits, 1), chances: [1] };
  const all = top_k === 0 || top_k >= logits.length;
  const ids = all ? [...logits.keys()] : likeliest(logits, top_k);
  const most = logits.reduce((a, b) => Math.max(a, b));
  const chances = ids.map((id) => Math.exp((logits[id] - most) / temperature));
  const total = chances.reduce((a, b) => a + b);
  return { ids, chances: chances.map((chance) => chance / total) };
}

/* One of the choices: a random number from [0, 1) falls on one of them. */
function draw(logits, temperature, top_k, random) {
  const { ids, chances } = choices(logits, temperature, top_k);
  let rest = random();
  for (let i = 0; i < ids.length; i++) {
    rest -= chances[i];
    if (rest < 0) return ids[i];
  }
  return likeliest(logits, 1)[0]; // the chances summed to a little less than 1
}

/* The words, up to the next space or line end, that are likeliest after what the decoder has read:
 * best-first search, as next_word_probabilities of charrnn/writing/words.py. A generator, which
 * reads one prefix between two yields, with the decoder's own state in between; it returns
 * {word, chance} of those n that no word not found can be likelier than, the likeliest first. */
function* likeliestWords(decoder, tokens, n, most = 400) {
  const before = decoder.save();
  const isEnd = tokens.map((token) => token === " " || token === "\n");
  let waiting = [{ word: "", chance: 1, state: before }], found = [];
  const down = (a, b) => b.chance - a.chance;
  const isProven = (place) => waiting.length === 0 || found[place]?.chance >= waiting[0].chance;
  for (let read = 0; read < most && waiting.length > 0 && !isProven(n - 1); read++) {
    const { word, chance, state, id } = waiting.shift();
    decoder.restore(state);
    if (id !== undefined) decoder.step(id);
    const { chances } = choices(decoder.logits, 1, 0), after = decoder.save();
    let ended = 0;
    chances.forEach((p, next) => {
      if (isEnd[next]) ended += p;
      else waiting.push({ word: word + tokens[next], chance: chance * p, state: after, id: next });
    });
    found.push({ word, chance: chance * ended });
    found = found.sort(down).slice(0, n);
    waiting = waiting.sort(down).slice(0, most);
    decoder.restore(before);
    yield;
  }
  return found.filter((_, place) => isProven(place));
}

/* How surprising a character was: -log2 of its probability, in bits. */
function surprise(logits, id) {
  const most = logits.reduce((a, b) => Math.max(a, b));
  let total = 0;
  for (const logit of logits) total += Math.exp(logit - most);
  return Math.log2(total) - (logits[id] - most) / Math.LN2;
}

/* Numbers from [0, 1), the same for the same seed: mulberry32 by Tommy Ettinger (public domain), a
 * counter of 32 bits and two rounds of mixing. Not PyTorch's numbers: seeds of sample.py differ. */
function randomNumbers(seed) {
  let counter = seed | 0;
  return () => {
    counter = (counter + 0x6d2b79f5) | 0;
    let t = Math.imul(counter ^ (counter >>> 15), counter | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
