/* The worker: reads and writes beside the page, so that the page answers to keys meanwhile.
 *
 * First it is sent {model, base64}. Then jobs {job, ids, length, temperature, top_k, seed}: read
 * ids, write `length` more. It answers each with any number of {job, from, bits, written, logits,
 * done}: the surprises of what it read from character `from` on, the ids it wrote, and the scores
 * of each next character. A new job ends the one before. */
function startWorker() {
  const EVERY = 64; // characters between two saved states: a change in the text reads few again
  const SLICE = 16; // milliseconds between two answers
  let decoder, read = [], saved = [], current = 0;

  /* Go back to the last saved state before the first character that is no longer the same. */
  function rewind(ids) {
    let same = 0;
    while (same < read.length && read[same] === ids[same]) same++;
    if (same === read.length) return;
    saved.length = Math.floor(same / EVERY) + 1;
    read.length = (saved.length - 1) * EVERY;
    decoder.restore(saved[saved.length - 1]);
  }

  function step(id) {
    decoder.step(id);
    read.push(id);
    if (read.length % EVERY === 0) saved.push(decoder.save());
  }

  /* Let messages in; setTimeout would wait at least 4 ms. */
  const { port1, port2 } = new MessageChannel();
  const pause = () => new Promise((resolve) => {
    port1.onmessage = resolve;
    port2.postMessage(null);
  });

  async function work({ job, ids, length, temperature, top_k, seed }) {
    const random = randomNumbers(seed);
    rewind(ids);
    let left = length;
    for (let done = false; !done;) {
      const from = read.length, bits = [], written = [], end = performance.now() + SLICE;
      do {
        done = read.length >= ids.length && left === 0;
        if (done) break;
        let id = ids[read.length];
        if (read.length >= ids.length) {
          id = draw(decoder.logits, temperature, top_k, random);
          written.push(id);
          left--;
        }
        bits.push(surprise(decoder.logits, id));
        step(id);
      } while (performance.now() < end);
      postMessage({ job, from, bits, written, logits: decoder.logits.slice(), done });
      await pause();
      if (job !== current) return;
    }
  }

  onmessage = ({ data }) => {
    if (data.model) {
      decoder = new Decoder(data.model, unpack(data.model, data.base64));
      decoder.step(data.model.start); // as if a line began
      saved = [decoder.save()];
    } else {
      current = data.job;
      work(data);
    }
  };
}
