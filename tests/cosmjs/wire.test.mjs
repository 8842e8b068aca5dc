// Signs and checks everything that docs/wire.md describes, from that page alone, against the golden vectors of the Rust types.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Secp256k1, Secp256k1Signature } from "@cosmjs/crypto";
import { fromHex, toHex, toUtf8 } from "@cosmjs/encoding";

const golden = JSON.parse(readFileSync(new URL("../../schema/vectors/signed.json", import.meta.url), "utf8"));
const secret = fromHex(golden.secret_key);
const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

const bigEndian = (value, length) => fromHex(BigInt(value).toString(16).padStart(2 * length, "0"));
const number = (value) => bigEndian(value, 8);
const amount = (value) => bigEndian(value, 16);
const bytes = (value) => [bigEndian(value.length, 4), value];
const text = (value) => bytes(toUtf8(value));
const digest = (value) => bytes(fromHex(value));
const option = (value, write) => (value === null ? [Uint8Array.of(0)] : [Uint8Array.of(1), write(value)]);
const outcome = (value) => number({ done: 0 }[value]);
const domain = ({ chain_id, contract }) => [text(chain_id), text(contract)];
const item = ({ job, shard, replica }) => [number(job), number(shard), number(replica)];

const fields = {
  receipt: (r) => [
    domain(r.domain), item(r.item), number(r.attempt), number(r.deployment), number(r.first), number(r.last),
    digest(r.input_digest), digest(r.output_digest), option(r.tokens_digest, digest), option(r.seed, number),
    number(r.units_in), number(r.units_out), outcome(r.outcome), option(r.previous, digest),
  ],
  acknowledgement: (a) => [domain(a.domain), item(a.item), number(a.attempt), number(a.deployment), digest(a.input_digest)],
  "output-request": (r) => [domain(r.domain), item(r.item), digest(r.output_digest), number(r.valid_until)],
  voucher: (v, of) => [
    domain(of), number(v.session), number(v.deployment), number(v.sequence),
    number(v.requests), number(v.units_in), number(v.units_out), amount(v.amount),
  ],
  "session-receipt": (r) => [
    domain(r.domain), number(r.session), number(r.deployment), number(r.sequence),
    digest(r.request_digest), digest(r.output_digest), option(r.tokens_digest, digest), option(r.seed, number),
    number(r.units_in), number(r.units_out), outcome(r.outcome),
  ],
  "session-hello": (h, of) => [domain(of), number(h.session), number(h.deployment), digest(h.nonce)],
  "close-consent": (c, of) => [domain(of), number(c.session), number(c.deployment), number(c.sequence)],
};

function digestOf({ type, value, domain: of }) {
  const hash = createHash("sha256").update(`fxn/${type}/v1`);
  for (const piece of fields[type](value, of).flat(Infinity)) hash.update(piece);
  return new Uint8Array(hash.digest());
}

async function sign(hash) {
  const signature = await Secp256k1.createSignature(hash, secret);
  return toHex(new Uint8Array([...signature.r(32), ...signature.s(32)]));
}

// As docs/wire.md asks of whoever checks one: 64 bytes, the lower s, this digest, this key.
async function isSigned(hash, signature, key) {
  const raw = fromHex(signature);
  if (raw.length !== 64 || 2n * BigInt(`0x${toHex(raw.slice(32))}`) > order) return false;
  return Secp256k1.verifySignature(Secp256k1Signature.fromFixedLength(raw), hash, key);
}

test("every type of the page has a vector, and every vector a type", () => {
  assert.deepEqual(new Set(golden.vectors.map(({ type }) => type)), new Set(Object.keys(fields)));
});

for (const [index, vector] of golden.vectors.entries()) {
  test(`${vector.type} (vector ${index}) is hashed, signed and checked as in Rust`, async () => {
    const hash = digestOf(vector);
    assert.equal(toHex(hash), vector.digest);
    assert.equal(await sign(hash), vector.signature);
    const key = fromHex(golden.public_key);
    assert.ok(await isSigned(hash, vector.signature, key));
    const other = hash.slice();
    other[31] ^= 1;
    assert.ok(!(await isSigned(other, vector.signature, key)), "another digest");
  });

  test(`the twin of vector ${index} with the higher s is no signature`, async () => {
    const s = BigInt(`0x${vector.signature.slice(64)}`);
    const twin = vector.signature.slice(0, 64) + (order - s).toString(16).padStart(64, "0");
    assert.ok(!(await isSigned(fromHex(vector.digest), twin, fromHex(golden.public_key))));
  });
}

test("the key of the vectors is the one that signed them", async () => {
  const pair = await Secp256k1.makeKeypair(secret);
  assert.equal(toHex(Secp256k1.compressPubkey(pair.pubkey)), golden.public_key);
});

test("a field that changes changes the digest", () => {
  for (const vector of golden.vectors) {
    for (const name of Object.keys(vector.value).filter((name) => /^\d{1,39}$/.test(vector.value[name]))) {
      const value = { ...vector.value, [name]: String(BigInt(vector.value[name]) ^ 1n) };
      assert.notEqual(toHex(digestOf({ ...vector, value })), vector.digest, `${vector.type}.${name}`);
    }
  }
});
