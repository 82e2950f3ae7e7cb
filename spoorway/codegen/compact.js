// Writes compact frames, version 1. An ES module without dependencies.
const NAMED = 1, SEALED = 2, EARLIER = 4, BATCH = 8, LARGEST_FRAME = 257;

function crc16(bytes) {
  let crc = 0xffff;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff;
  }
  return crc;
}

function number(out, n) {
  for (; n > 0x7f; n = Math.floor(n / 128)) out.push((n & 0x7f) | 0x80);
  out.push(n);
}

function code(field, value) {
  if (field.values) return field.values.indexOf(value) < 0 ? NaN : field.values.indexOf(value);
  if (field.kind === "boolean") return value ? 1 : 0;
  return Math.round(value * 10 ** field.scale) - field.offset;
}

function written(out, field, value) {
  if (value === undefined || value === null) {
    out.push(0);
  } else if (field.most) {
    const bytes =
      field.kind === "bytes" ? (value.match(/../g) ?? []).map((digits) => parseInt(digits, 16)) : [...new TextEncoder().encode(value)];
    if (bytes.length > field.most) return false;
    number(out, bytes.length + 1);
    out.push(...bytes);
  } else {
    const n = code(field, value);
    if (!(Math.abs(n) <= 0x7fffffff)) return false;
    number(out, (n < 0 ? -2 * n - 1 : 2 * n) + 1);
  }
  return true;
}

// One frame, or null for what no frame can hold. readings: objects, field name -> value, each with its uptime_ms.
// frame: boot, sequence (of the first reading), mark_ms (uptime at sending); if wanted device (a name), earlier (true: of an
// earlier boot), seal (a function: covered bytes -> four bytes).
function encodeFrame(template, readings, frame) {
  const ages = readings.map((reading) => (frame.mark_ms - reading.uptime_ms) >>> 0);
  const batch = readings.length > 1 || ages[0] > 0;
  const out = [0xc0 | (frame.device ? NAMED : 0) | (frame.seal ? SEALED : 0) | (frame.earlier ? EARLIER : 0) | (batch ? BATCH : 0)];
  if (batch) out.push(0, readings.length);
  if (frame.device) out.push(frame.device.length, ...new TextEncoder().encode(frame.device));
  number(out, template.number);
  number(out, frame.boot);
  number(out, frame.sequence);
  for (let shift = 0; shift < 32; shift += 8) out.push((frame.mark_ms >>> shift) & 0xff);
  for (let i = 0; i < readings.length; i++) {
    if (batch) number(out, ages[i]);
    for (const field of template.fields) {
      if (!written(out, field, readings[i][field.name])) return null;
    }
  }
  if (batch) {
    const length = out.length - 2 + (frame.seal ? 4 : 2);
    if (length + 2 > LARGEST_FRAME || readings.length > 255) return null;
    out[1] = length;
  }
  const covered = Uint8Array.from(out);
  const crc = crc16(covered);
  return Uint8Array.from([...covered, ...(frame.seal ? frame.seal(covered) : [crc >> 8, crc & 0xff])]);
}
