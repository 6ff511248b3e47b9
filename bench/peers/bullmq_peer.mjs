// BullMQ: 100 jobs at once; results through QueueEvents; addBulk in parts of 1,000. The same orders as in program.py.
import { createInterface } from "node:readline";
import { Queue, QueueEvents, Worker } from "bullmq";

const WORD = "@bench ";
const REPORT = -1;
const url = new URL(process.env.BENCH_REDIS);
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };
// The clock that Python's time.monotonic reads.
const monotonic = () => Number(process.hrtime.bigint()) / 1e9;
const say = (message) => process.stdout.write(`${WORD}${JSON.stringify(message)}\n`);
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const until = async (due) => {
  await sleep(Math.max(0, due - monotonic() - 0.001));
  while (monotonic() < due) await new Promise(setImmediate); // timers fire up to 1 ms early
};

function work() {
  let first = true;
  let delays = [];
  new Worker(
    "bench",
    async (job) => {
      const { sent } = job.data;
      if (sent > 0) delays.push(monotonic() - sent);
      if (first) {
        first = false;
        const { user, system } = process.cpuUsage();
        say({ first: monotonic(), cpu: (user + system) / 1e6, pid: process.pid });
      }
      if (sent === REPORT) {
        say({ delays });
        delays = [];
      }
    },
    { connection, concurrency: 100 },
  );
}

async function latency(queue, rate, count) {
  const events = new QueueEvents("bench", { connection });
  await events.waitUntilReady();
  const begin = monotonic() + 0.1;
  const one = async (due) => {
    await until(due);
    const job = await queue.add("noop", { sent: due });
    await job.waitUntilFinished(events, 30000);
    return monotonic() - due;
  };
  const results = await Promise.all(Array.from({ length: count }, (_, i) => one(begin + i / rate)));
  await events.close();
  return results;
}

async function obey(queue, order) {
  const began = monotonic();
  switch (order.do) {
    case "one":
      for (let i = 0; i < order.count; i++) await queue.add("noop", { sent: order.sent ?? 0 });
      break;
    case "many":
      for (let left = order.count; left > 0; left -= 1000) {
        const data = { sent: 0, text: order.text ?? "" };
        await queue.addBulk(Array.from({ length: Math.min(left, 1000) }, () => ({ name: "noop", data })));
      }
      break;
    case "recorded":
      while ((await queue.getJobCounts("completed")).completed < order.count) await sleep(0.005);
      break;
    case "latency":
      return { results: await latency(queue, order.rate, order.count) };
  }
  return { seconds: monotonic() - began, at: monotonic() };
}

async function client() {
  const queue = new Queue("bench", { connection });
  await queue.waitUntilReady();
  say({ ready: true });
  for await (const line of createInterface({ input: process.stdin })) say(await obey(queue, JSON.parse(line)));
  process.exit(0);
}

if (process.argv[2] === "worker") work();
else await client();
