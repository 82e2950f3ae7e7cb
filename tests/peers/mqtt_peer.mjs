// Publishes events with mqtt.js and prints, as JSON, what it was told.
//
//     node tests/peers/mqtt_peer.mjs mqtt://127.0.0.1:1883 --version 5 --name d1 [--password P] [--ca FILE]
//
// One event per quality of service, each with its own action; then one on a topic nobody takes.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import mqtt from "mqtt";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    version: { type: "string", default: "4" },
    name: { type: "string" },
    password: { type: "string" },
    ca: { type: "string" },
  },
});
const version = Number(options.version);
const client = await mqtt.connectAsync(positionals[0], {
  protocolVersion: version,
  clientId: `mqttjs-${options.name}`,
  reconnectPeriod: 0,
  ...(options.password && { username: options.name, password: options.password }),
  ...(options.ca && { ca: readFileSync(options.ca) }),
});
const down = new Promise((resolve) => client.once("message", (topic, body) => resolve(JSON.parse(body.toString()))));
await client.subscribeAsync(`spoorway/${options.name}/down`);
const told = await down;
const acknowledged = [];
for (const qos of [0, 1, 2]) {
  const event = `e=se&p=iot&tv=mqttjs&se_ca=mqttjs-${version}&se_ac=qos${qos}`;
  await client.publishAsync(`spoorway/${options.name}/tp1`, event, { qos });
  acknowledged.push(qos);
}
let refused = null;
if (version === 5) {
  refused = await client.publishAsync("nobody/takes/this", "x", { qos: 1 }).then(
    () => 0,
    (error) => error.code,
  );
}
await client.endAsync();
console.log(JSON.stringify({ acknowledged, refused, told: Object.keys(told) }));
