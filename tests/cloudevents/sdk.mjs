// Publishes with the CloudEvents SDK for JavaScript in every mode, and parses with it what a gateway sends.

import assert from "node:assert/strict";
import { CloudEvent, HTTP } from "cloudevents";

const address = process.argv[2];
const channel = "sdk.javascript";
const url = `http://${address}/channels/${channel}/events`;
const deadline = () => AbortSignal.timeout(20_000);

const made = (number, data, datacontenttype = "application/json") =>
  new CloudEvent({
    id: `e${number}`,
    source: "/javascript",
    type: "com.example.test",
    subject: "a subject",
    time: "2026-01-02T03:04:05.678Z",
    datacontenttype,
    dataschema: "http://example.com/schema",
    extension: "value",
    data,
  });

const events = [
  made(1, { n: 1, text: "grün" }),
  made(2, [1, 2.5, null]),
  made(3, "plain", "text/plain"),
  made(4, new Uint8Array([0, 255]), "application/octet-stream"),
];

async function post({ headers, body }) {
  const response = await fetch(url, { method: "POST", headers, body, signal: deadline() });
  const answer = await response.json();
  assert.equal(response.status, 200, JSON.stringify(answer));
  return answer;
}

const structured = { "content-type": "application/cloudevents+json" };
const parsed = (text) => HTTP.toEvent({ headers: structured, body: text });

function check(event, sent, offset) {
  for (const name of ["id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "extension"]) {
    assert.equal(event[name], sent[name], name);
  }
  if (sent.data instanceof Uint8Array) {
    const bytes = event.data_base64 ? Buffer.from(event.data_base64, "base64") : Buffer.from(event.data);
    assert.deepEqual(new Uint8Array(bytes), sent.data);
  } else {
    assert.deepEqual(event.data, sent.data);
  }
  assert.equal(event.sgchannel, channel);
  assert.equal(event.sgoffset, String(offset));
}

// A stream, read as far as this needs it.
async function* stream(response) {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of response.body) {
    text += decoder.decode(chunk, { stream: true });
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length > 0 && !lines.some((line) => line.startsWith("event: "))) {
        yield parsed(data.join("\n"));
      }
    }
  }
}

const listening = await fetch(`http://${address}/sse?channel=${channel}`, { signal: deadline() });
assert.equal(listening.status, 200);

const sent = [];
for (const event of events) {
  for (const mode of [HTTP.structured, HTTP.binary]) {
    const answer = await post(mode(event));
    sent.push(event);
    assert.equal(answer.position.offset, String(sent.length));
  }
}
const batch = `[${events.map((event) => HTTP.structured(event).body).join(",")}]`;
const answer = await post({ headers: { "content-type": "application/cloudevents-batch+json" }, body: batch });
assert.deepEqual(answer.results.map((one) => one.id), events.map((event) => event.id));
sent.push(...events);

let place = 0;
for await (const event of stream(listening)) {
  check(event, sent[place], place + 1);
  place += 1;
  if (place === sent.length) break;
}

const page = await fetch(url, { signal: deadline() });
const headers = { "content-type": page.headers.get("content-type") };
const read = HTTP.toEvent({ headers, body: await page.text() });
assert.equal(read.length, sent.length);
read.forEach((event, at) => check(event, sent[at], at + 1));

if (globalThis.WebSocket) {
  const socket = new WebSocket(`ws://${address}/ws?channel=${channel}`, "cloudevents.json");
  const got = await new Promise((done, failed) => {
    const seen = {};
    socket.onerror = failed;
    socket.onmessage = ({ data }) => {
      const event = parsed(data);
      if (event.type === "io.streamgate.connected") socket.send(HTTP.structured(events[0]).body);
      seen[event.type] = event;
      if (seen["io.streamgate.ack"] && seen["com.example.test"]) done(seen);
    };
  });
  check(got["com.example.test"], events[0], got["io.streamgate.ack"].data.offset);
  socket.close();
}
console.log(`CloudEvents SDK for JavaScript: ${sent.length} events in three modes, parsed from a stream and a page`);
process.exit(0);
