// A program in Node tells of a change, with nothing of cachebus: node publish.mjs CHANNEL JSON
// Any Redis client does it: a worker listens to the channel and handles the event.
import { createConnection } from "node:net";

const [channel, event] = process.argv.slice(2);
JSON.parse(event); // what is no JSON would become a dead letter
const url = new URL(process.env.REDIS_URL ?? "redis://localhost:6379");
const words = ["PUBLISH", channel, event];
const command = `*${words.length}\r\n` + words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("");

const socket = createConnection({ host: url.hostname, port: Number(url.port || 6379) }, () => socket.write(command));
socket.on("data", (reply) => {
  console.log(`heard by ${reply.toString().trim().slice(1)}`);
  socket.end();
});
