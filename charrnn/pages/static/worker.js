/* The worker: reads and writes beside the page, so that the page answers to keys meanwhile.
 *
 * First it is sent {model, base64}. Then jobs {job, ids, from, length, temperature, top_k, seed}:
 * read ids, write `length` more. It answers each with any number of {job, from, bits, written,
 * logits, done}: the surprises of the characters from `from` on, the ids it wrote, and the scores
 * of each next character; then with {job, words}, the likeliest next words. A new job ends the one before; {temperature, top_k} changes its. */
function startWorker() {
  const EVERY = 64; // characters between two saved states: a change in the text reads few again
  const SLICE = 16; // milliseconds between two answers
  let decoder, tokens, current; // the job
  let read = [], surprises = []; // the ids read so far, and how surprising each was
  let saved = []; // the state before every EVERY-th of them

  /* Go back to the last saved state before the first character that is no longer the same. */
  function rewind(ids) {
    let same = 0;
    while (same < read.length && read[same] === ids[same]) same++;
    if (same === read.length) return;
    saved.length = Math.floor(same / EVERY) + 1;
    read.length = surprises.length = (saved.length - 1) * EVERY;
    decoder.restore(saved[saved.length - 1]);
  }

  function step(id) {
    surprises.push(surprise(decoder.logits, id));
    decoder.step(id);
    read.push(id);
    if (read.length % EVERY === 0) saved.push(decoder.save());
  }

  /* Let messages in; setTimeout would wait at least 4 ms. */
  const { port1, port2 } = new MessageChannel();
  port1.start();
  const pause = () => new Promise((resolve) => {
    port1.addEventListener("message", resolve, { once: true });
    port2.postMessage(null);
  });

  async function work(job) {
    const { ids, length } = job, random = randomNumbers(job.seed);
    rewind(ids);
    for (let left = length, done = false; !done;) {
      const end = performance.now() + SLICE, written = [];
      while (!done && performance.now() < end) {
        if (read.length < ids.length) {
          step(ids[read.length]);
        } else if (left > 0) {
          written.push(draw(decoder.logits, job.temperature, job.top_k, random));
          step(written.at(-1));
          left--;
        } else {
          done = true;
        }
      }
      const bits = surprises.slice(job.from), logits = decoder.logits.slice();
      postMessage({ job: job.job, from: job.from, bits, written, logits, done });
      job.from += bits.length;
      await pause();
      if (job !== current) return;
    }
    await findWords(job);
  }

  /* Answer once more, with {job, words}: the likeliest next words. */
  async function findWords(job) {
    const search = likeliestWords(decoder, tokens, 6);
    let end = performance.now() + SLICE;
    for (let next = search.next(); ; next = search.next()) {
      if (next.done) return postMessage({ job: job.job, words: next.value });
      if (performance.now() < end) continue;
      await pause();
      if (job !== current) return;
      end = performance.now() + SLICE;
    }
  }

  onmessage = ({ data }) => {
    if (data.model) {
      ({ tokens } = data.model);
      decoder = new Decoder(data.model, unpack(data.model, data.base64));
      decoder.step(data.model.start); // as if a line began
      saved = [decoder.save()];
    } else if (data.job) {
      current = data;
      work(data);
    } else if (current) {
      Object.assign(current, data);
    }
  };
}
