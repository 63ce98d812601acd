// Webhook signatures after docs and specification, with nothing but node's own crypto: what Python is held against.
//
//   node verify.mjs sign   < cases.json   the cases, each with its `babysea` and `standard` signature renewed
//   node verify.mjs verify < cases.json   for each case, whether each of the two signatures is right
//
// A case has `secret`, `timestamp` (unix seconds), `id` and `body` (text) or `body_base64` (bytes). After a change of
// webhook_vectors.json: node verify.mjs sign < webhook_vectors.json > new.json, and move it over the old.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

const body = (it) => ("body" in it ? Buffer.from(it.body, "utf8") : Buffer.from(it.body_base64, "base64"));

const hmac = (key, head, it) => createHmac("sha256", key).update(head).update(body(it)).digest();

const babysea = (it) => {
  const digest = hmac(Buffer.from(it.secret, "utf8"), `${it.timestamp}.`, it);
  return `t=${it.timestamp},v1=${digest.toString("hex")}`;
};

const standard = (it) => {
  const key = Buffer.from(it.secret.replace(/^whsec_/, ""), "base64");
  return `v1,${hmac(key, `${it.id}.${it.timestamp}.`, it).toString("base64")}`;
};

const equal = (one, other) => {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
};

const modes = {
  sign: (it) => ({ ...it, babysea: babysea(it), standard: standard(it) }),
  verify: (it) => ({ babysea: equal(babysea(it), it.babysea), standard: equal(standard(it), it.standard) }),
};

const cases = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(`${JSON.stringify(cases.map(modes[process.argv[2]]), null, 2)}\n`);
