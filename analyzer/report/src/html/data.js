// Opens the payload: the names, the frames, and the recordings. A recording has one column for each figure of
// its sites.

/**
 * @typedef {{sites: number, instants: number, labels: string[], others_sites: number,
 *   unlisted_sites: number, other_sites: number, is_empty: boolean,
 *   peak_s: number, peak_bytes: number, judged_until_s: number, has_turnover: boolean, has_resident: boolean,
 *   duration_s: number, gone: {name: string, was: number}[], source: string, recorded: string, title: string,
 *   headline: {mark: string, verdict: string, answers: [string, [string, boolean][]][],
 *     missed: string[]}}} TraceHeader
 * @typedef {{version: number, traces: TraceHeader[], names: string[],
 *   columns: Record<string, [number, number]>}} Header
 * @typedef {{allocated: Float64Array, freed: Float64Array, allocs: Float64Array,
 *   frees: Float64Array}} Counters
 */

const VERDICTS = ["leak", "undecided", "no-leak"];
const CHANGES = ["", "new", "faster", "same", "slower"];
const KINDS = ["caller", "stack", "other", "injected"];
const FLAG_FREED_AT_END = 4;
const CURVE_COLUMNS = 40;
const FLAG_INLINED = 1;

/** All columns of the payload, by name. */
class Columns {
  /** @param {Header} header @param {Uint8Array} bytes the bytes after the header */
  constructor(header, bytes) {
    this.header = header;
    this.blob = bytes;
  }

  /** @param {string} name @returns {Uint8Array} */
  bytes(name) {
    const [offset, length] = this.header.columns[name] ?? [0, 0];
    return this.blob.subarray(offset, offset + length);
  }

  /** @param {string} name @returns {Float64Array} */
  numbers(name) {
    const bytes = this.bytes(name);
    let count = 0;
    for (let i = 0; i < bytes.length; i++) if (bytes[i] < 0x80) count++;
    const numbers = new Float64Array(count);
    const reader = new Reader(bytes);
    for (let i = 0; i < count; i++) numbers[i] = reader.next();
    return numbers;
  }

  /** Numbers; −1 stands for an unknown number. @param {string} name @returns {Float64Array} */
  options(name) {
    return this.numbers(name).map((number) => number - 1);
  }

  /** @param {string} name @returns {Float64Array} */
  doubles(name) {
    const bytes = this.bytes(name);
    return new Float64Array(bytes.slice().buffer);
  }
}

/** Reads numbers from a column, one after another. */
class Reader {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  next() {
    let byte = this.bytes[this.at++];
    if (byte < 0x80) return byte;
    let value = byte & 0x7f;
    for (let scale = 128; ; scale *= 128) {
      byte = this.bytes[this.at++];
      value += (byte & 0x7f) * scale;
      if (!(byte >= 0x80)) return value;
    }
  }
}

/** One recording. */
class Trace {
  /** @param {Columns} columns @param {number} index */
  constructor(columns, index) {
    const header = columns.header.traces[index];
    this.columns = columns;
    this.header = header;
    this.index = index;
    this.sites = header.sites;
    this.instants = header.instants;
    /** @param {string} name */
    const numbers = (name) => columns.numbers(index + "." + name);
    /** @param {string} name */
    const options = (name) => columns.options(index + "." + name);
    /** @param {string} name */
    const doubles = (name) => columns.doubles(index + "." + name);

    this.at_s = doubles("at_s");
    this.missing = numbers("missing");
    this.resident = numbers("resident");
    this.swap = numbers("swap");
    this.process = unpack(columns.bytes(index + ".process"), this.instants);
    this.others = unpack(columns.bytes(index + ".others"), this.instants);
    this.live = liveOf(this.process);

    this.label = numbers("label");
    this.kind = numbers("kind");
    this.parent = options("parent");
    this.verdict = numbers("verdict");
    this.confidence = numbers("confidence");
    this.klass = numbers("class");
    this.standing = numbers("standing");
    this.flags = numbers("flags");
    this.why = numbers("why");
    this.name = numbers("name");
    this.file = numbers("file");
    this.line = numbers("line");
    this.module = numbers("module");
    this.finding = numbers("finding");
    this.leakBytes = numbers("leak_bytes");
    this.leakedHere = numbers("leaked_here");
    this.leakShare = doubles("leak_share");
    this.recordLonger = doubles("record_longer_s");
    this.rate = doubles("rate");
    this.began = doubles("began_s");
    this.liveBytes = numbers("live_bytes");
    this.liveCount = options("live_count");
    this.allocs = options("allocs");
    this.frees = options("frees");
    this.allocatedBytes = options("allocated_bytes");
    this.freedBytes = options("freed_bytes");
    this.peakBytes = numbers("peak_bytes");
    this.peakAt = doubles("peak_s");
    this.bytesAtPeak = numbers("bytes_at_peak");
    this.change = numbers("change");
    this.was = doubles("was");

    this.frameCount = numbers("frames");
    this.stacks = numbers("stack");
    this.stackFrom = startsOf(this.frameCount);
    this.epochs = numbers("epochs");
    this.epochFrom = doubles("epoch_from_s");
    this.epochTo = doubles("epoch_to_s");
    this.epochBytes = numbers("epoch_bytes");
    this.epochCount = numbers("epoch_count");
    this.epochsFrom = startsOf(this.epochs);

    this.packedBytes = options("packed_bytes");
    this.packed = columns.bytes(index + ".packed");
    this.packedFrom = startsOf(this.packedBytes.map((bytes) => Math.max(0, bytes)));
    this.curves = columns.bytes(index + ".curves");
    this.curveFrom = startsOf(this.packedBytes.map((bytes) => (bytes < 0 ? CURVE_COLUMNS : 0)));
    /** @type {Map<number, Counters>} */
    this.opened = new Map();
    let text = 0;
    /** @type {string[]} */
    this.ids = Array.from(this.label, (label) => (label > 0 ? String(label - 1) : header.labels[text++]));
  }

  /** Index of the last instant. */
  get end() {
    return Math.max(0, this.instants - 1);
  }

  /** @param {number} number @returns {string} */
  text(number) {
    return number === 0 ? "" : this.columns.header.names[number - 1];
  }

  /** The name of the site for people. @param {number} site */
  nameOf(site) {
    return this.text(this.name[site]);
  }

  /** `file:line`, or the part of it that is known. @param {number} site */
  placeOf(site) {
    const file = this.text(this.file[site]);
    return file === "" || this.line[site] === 0 ? file : file + ":" + this.line[site];
  }

  /** Frames, innermost first. @param {number} site @returns {Float64Array} */
  stackOf(site) {
    return this.stacks.subarray(this.stackFrom[site], this.stackFrom[site] + this.frameCount[site]);
  }

  /**
   * Index of the last instant before the program freed everything and ended. Without
   * such an end: of the last instant.
   */
  get judgedEnd() {
    let judged = this.end;
    while (judged > 0 && this.at_s[judged] > this.header.judged_until_s) judged--;
    return judged > 0 ? judged : this.end;
  }

  /** Whether the site has counters of its own. @param {number} site */
  hasCounters(site) {
    return this.packedBytes[site] >= 0;
  }

  /** The counters of a site at every instant. @param {number} site @returns {Counters | null} */
  countersOf(site) {
    if (!this.hasCounters(site)) return null;
    let counters = this.opened.get(site);
    if (counters === undefined) {
      counters = unpack(this.packedOf(site), this.instants);
      if (this.opened.size > 2000) this.opened.clear();
      this.opened.set(site, counters);
    }
    return counters;
  }

  /** @param {number} site */
  packedOf(site) {
    return this.packed.subarray(this.packedFrom[site], this.packedFrom[site] + this.packedBytes[site]);
  }

  /**
   * Live bytes of a site at every instant. For a site without counters: its coarse curve.
   * @param {number} site @returns {Float64Array}
   */
  curveOf(site) {
    const counters = this.countersOf(site);
    if (counters !== null) return liveOf(counters);
    const from = this.curveFrom[site];
    const scale = this.peakBytes[site] / 255;
    return Float64Array.from(this.curves.subarray(from, from + CURVE_COLUMNS), (byte) => byte * scale);
  }

  /** The instant nearest to a time. @param {number} seconds */
  instantAt(seconds) {
    let low = 0;
    let high = this.end;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.at_s[middle] < seconds) low = middle + 1;
      else high = middle;
    }
    return low > 0 && seconds - this.at_s[low - 1] < this.at_s[low] - seconds ? low - 1 : low;
  }
}

/** @param {Float64Array} counts @returns {Float64Array} the index of the first item of each */
function startsOf(counts) {
  const starts = new Float64Array(counts.length);
  for (let i = 1; i < counts.length; i++) starts[i] = starts[i - 1] + counts[i - 1];
  return starts;
}

/** @param {Uint8Array} bytes @param {number} instants @returns {Counters} */
function unpack(bytes, instants) {
  const counters = {
    allocated: new Float64Array(instants),
    freed: new Float64Array(instants),
    allocs: new Float64Array(instants),
    frees: new Float64Array(instants),
  };
  const reader = new Reader(bytes);
  const now = [0, 0, 0, 0];
  let next = 0;
  /** @param {number} until */
  const fill = (until) => {
    for (; next < Math.min(until, instants); next++) {
      counters.allocated[next] = now[0];
      counters.freed[next] = now[1];
      counters.allocs[next] = now[2];
      counters.frees[next] = now[3];
    }
  };
  while (reader.at < bytes.length) {
    fill(next + reader.next());
    for (let i = 0; i < 4; i++) now[i] += reader.next();
    fill(next + 1);
  }
  fill(instants);
  return counters;
}

/** @param {Counters} counters @returns {Float64Array} */
function liveOf(counters) {
  return counters.allocated.map((bytes, i) => Math.max(0, bytes - counters.freed[i]));
}

/** Frames of all recordings. */
class Frames {
  /** @param {Columns} columns */
  constructor(columns) {
    this.names = columns.header.names;
    this.name = columns.numbers("frame.name");
    this.file = columns.numbers("frame.file");
    this.line = columns.numbers("frame.line");
    this.module = columns.numbers("frame.module");
    this.offset = columns.numbers("frame.offset");
    this.flags = columns.numbers("frame.flags");
  }

  /** @param {number} frame */
  nameOf(frame) {
    return this.names[this.name[frame] - 1] ?? "";
  }

  /** @param {number} frame */
  placeOf(frame) {
    const file = this.names[this.file[frame] - 1] ?? "";
    return file === "" || this.line[frame] === 0 ? file : file + ":" + this.line[frame];
  }

  /** @param {number} frame */
  moduleOf(frame) {
    const module = this.names[this.module[frame] - 1] ?? "";
    return this.offset[frame] === 0 ? module : module + "+0x" + (this.offset[frame] - 1).toString(16);
  }

  /** @param {number} frame */
  isInlined(frame) {
    return (this.flags[frame] & FLAG_INLINED) !== 0;
  }
}

/** @param {string} base64 @returns {Uint8Array<ArrayBuffer>} */
function bytesOf(base64) {
  const native = /** @type {{fromBase64?: (text: string) => Uint8Array<ArrayBuffer>}} */ (
    /** @type {unknown} */ (Uint8Array)
  );
  if (native.fromBase64 !== undefined) return native.fromBase64(base64);
  const raw = atob(base64);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** Opens the data in the page. @returns {Promise<Columns>} */
async function openData() {
  const stream = new Blob([bytesOf(byId("data").textContent ?? "")])
    .stream()
    .pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const length = new DataView(bytes.buffer).getUint32(0, true);
  /** @type {Header} */
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return new Columns(header, bytes.subarray(4 + length));
}
